//! The page on the command line is what the table of keys says.

use std::fmt::Write;

use kernel_base::cmdline::KEYS;

const PAGE: &str = include_str!("../../../docs/command-line.md");

#[test]
fn the_page_lists_every_key_as_it_is() {
    let mut table = String::from("| key | value | default | what it does |\n|---|---|---|---|\n");
    for key in KEYS {
        // A bar would end the cell.
        let value = key.value.to_string().replace('|', ", ");
        writeln!(
            table,
            "| `{}` | {value} | {} | {} |",
            key.name, key.default, key.help
        )
        .unwrap();
    }
    assert!(
        PAGE.contains(&table),
        "docs/command-line.md should have:\n{table}"
    );
}
