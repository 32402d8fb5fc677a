//! Prints how often the locks of tree nodes are taken, on simulated machines of up to 4096
//! CPUs: the table of `docs/rcu.md`.
//!
//!     cargo run -p granary-rcu --example scale

#[allow(dead_code, reason = "what only the tests check")]
mod sim;
mod table;

fn main() {
    for line in table::lines() {
        println!("{line}");
    }
}
