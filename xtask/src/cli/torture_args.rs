//! The options of `test --torture`.

use std::time::Duration;

use clap::Args;

/// Options of `test` that are about torture.
#[derive(Clone, Debug, Args)]
pub struct TortureArgs {
    /// Torture RCU instead, for so long by the guest's time (90s, 10m, 2h), on one machine
    /// (without --cpus: 8 CPUs)
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with_all = ["filters", "list", "shuffle", "only", "long", "junit"])]
    pub torture: Option<Duration>,

    /// With --torture: children of a node of RCU's tree
    #[arg(long, value_name = "N", requires = "torture", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=64))]
    pub fanout: u32,

    /// With --torture: what decides all that is decided at random [default: another one each
    /// time]
    #[arg(long, value_name = "N", requires = "torture", value_parser = clap::value_parser!(u64).range(1..))]
    pub seed: Option<u64>,

    /// With --torture: a fault to switch on meanwhile, which the torture should find:
    /// skip_cpu, early_segment, lose_qs, still_idle or drop_on_hotplug
    #[arg(long, value_name = "NAME", requires = "torture", conflicts_with = "release", value_parser = fault)]
    pub fault: Option<String>,
}

/// Reads a time: a number with `s`, `m` or `h`, of seconds without.
fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let number: u32 = digits
        .parse()
        .map_err(|_| "no time such as 90s, 10m or 2h".to_owned())?;
    if number == 0 {
        return Err("no time at all".into());
    }
    Ok(Duration::from_secs(u64::from(number) * unit))
}

/// Reads the name of a fault. The kernel knows which there are.
fn fault(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    if text.is_empty() || !text.chars().all(plain) {
        return Err("no name of a fault".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7200)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "0", "0m", "m", "10d", "-1", "1.5m", "99999999999"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
