//! What xtask adds to the kernel command line.

/// The kernel command line: what the machine demands, then what the user gave,
/// which wins where both name a key.
pub fn kernel_cmdline(given: &str, icount: bool) -> String {
    let mut line = String::from("debug_exit=0xf4");
    if icount {
        // There it is so by definition, and a calibrated one would be a little off.
        line += " tsc_khz=1000000";
    }
    let given = given.trim();
    if !given.is_empty() {
        line.push(' ');
        line += given;
    }
    line
}

/// `key="value"`, such that the kernel reads back exactly `value`.
pub fn assignment(key: &str, value: &str) -> String {
    format!(
        "{key}=\"{}\"",
        value.replace('\\', r"\\").replace('"', "\\\"")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_needs_comes_first() {
        assert_eq!(kernel_cmdline("", false), "debug_exit=0xf4");
        assert_eq!(kernel_cmdline(" a b ", false), "debug_exit=0xf4 a b");
        assert_eq!(
            kernel_cmdline("a", true),
            "debug_exit=0xf4 tsc_khz=1000000 a"
        );
    }

    #[test]
    fn values_are_quoted_for_the_kernel() {
        assert_eq!(assignment("run", "mem; cpus"), r#"run="mem; cpus""#);
        assert_eq!(assignment("run", r#"echo "a\b""#), r#"run="echo \"a\\b\"""#);
    }
}
