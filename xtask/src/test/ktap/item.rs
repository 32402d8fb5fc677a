//! One line of KTAP, taken apart; what it means depends on the lines before it.

/// What a line says, apart from its indentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// `KTAP version <n>`: a plan and results follow on this level.
    Version(&'a str),
    /// `1..<n>`.
    Plan(usize),
    /// `# Subtest: <name>`.
    Subtest(&'a str),
    /// `# run: <suite>.<case>`: printed before a case starts.
    Run(&'a str),
    /// `ok <n> <name>` or `not ok <n> <name>`, with an optional directive.
    Result(ResultLine<'a>),
    /// `# kunit: <p> passed, <f> failed, <s> skipped`.
    Totals(Totals),
    /// `# kunit: shuffle seed <n>`.
    Seed(&'a str),
    /// Any other line that begins with `#`.
    Diagnostic(&'a str),
    /// A line that looks like KTAP and is not; the text says what is wrong.
    Malformed(&'static str),
    /// Anything else: output of the kernel that is no part of KTAP.
    Other,
}

/// `ok` or `not ok`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultLine<'a> {
    /// Whether the line says `ok`.
    pub ok: bool,
    /// The number on the line.
    pub number: usize,
    /// The name of the case or suite.
    pub name: &'a str,
    /// What follows `# `.
    pub directive: Directive<'a>,
}

/// The directive of a result line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Directive<'a> {
    /// None, or one without a meaning here.
    None,
    /// `SKIP <reason>`.
    Skip(&'a str),
    /// `TIMEOUT`.
    Timeout,
}

/// The kernel's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed or timed out.
    pub failed: usize,
    /// Cases that were skipped.
    pub skipped: usize,
}

/// Takes a line without its line end apart. Returns its level (0 for no
/// indentation, one more for every four blanks) and what it says.
pub fn parse(line: &str) -> (usize, Item<'_>) {
    let text = line.trim_start_matches(' ');
    let indent = line.len() - text.len();
    let text = text.trim_end();
    let item = parse_item(text);
    if !indent.is_multiple_of(4) && !matches!(item, Item::Other | Item::Diagnostic(_)) {
        return (
            indent / 4,
            Item::Malformed("indentation is not a multiple of four"),
        );
    }
    (indent / 4, item)
}

fn parse_item(text: &str) -> Item<'_> {
    if let Some(version) = text.strip_prefix("KTAP version ") {
        return Item::Version(version);
    }
    if let Some(count) = text.strip_prefix("1..") {
        return match parse_number(count) {
            Some(count) => Item::Plan(count),
            None => Item::Malformed("a plan without a number"),
        };
    }
    if let Some(rest) = text.strip_prefix('#') {
        return parse_comment(rest.strip_prefix(' ').unwrap_or(rest));
    }
    let (ok, rest) = match (text.strip_prefix("ok"), text.strip_prefix("not ok")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Item::Other,
    };
    // "okay" or the like is no result.
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Item::Other;
    }
    parse_result(ok, rest.trim_start())
}

fn parse_comment(text: &str) -> Item<'_> {
    if let Some(name) = text.strip_prefix("Subtest: ") {
        return Item::Subtest(name.trim());
    }
    if let Some(name) = text.strip_prefix("run: ") {
        return Item::Run(name.trim());
    }
    if let Some(rest) = text.strip_prefix("kunit: ") {
        if let Some(seed) = rest.strip_prefix("shuffle seed ") {
            return Item::Seed(seed.trim());
        }
        if let Some(totals) = parse_totals(rest) {
            return Item::Totals(totals);
        }
    }
    Item::Diagnostic(text)
}

/// `<p> passed, <f> failed, <s> skipped`.
fn parse_totals(text: &str) -> Option<Totals> {
    let mut parts = text.split(", ");
    let mut next = |word: &str| {
        let count = parts.next()?.strip_suffix(word)?.strip_suffix(' ')?;
        parse_number(count)
    };
    let totals = Totals {
        passed: next("passed")?,
        failed: next("failed")?,
        skipped: next("skipped")?,
    };
    parts.next().is_none().then_some(totals)
}

fn parse_result(ok: bool, text: &str) -> Item<'_> {
    let (number, rest) = text.split_once(' ').unwrap_or((text, ""));
    let Some(number) = parse_number(number) else {
        return Item::Malformed("a result without a number");
    };
    let (name, directive) = match rest.split_once("# ") {
        Some((name, directive)) => (name, parse_directive(directive.trim())),
        None => (rest, Directive::None),
    };
    let name = name.trim();
    let name = name.strip_prefix("- ").unwrap_or(name).trim();
    if name.is_empty() {
        return Item::Malformed("a result without a name");
    }
    Item::Result(ResultLine {
        ok,
        number,
        name,
        directive,
    })
}

fn parse_directive(text: &str) -> Directive<'_> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    match word {
        "SKIP" => Directive::Skip(rest.trim()),
        "TIMEOUT" => Directive::Timeout,
        _ => Directive::None,
    }
}

/// A number as KTAP writes it: digits only, no sign.
fn parse_number(text: &str) -> Option<usize> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(ok: bool, number: usize, name: &str, directive: Directive<'static>) -> String {
        format!(
            "{:?}",
            Item::Result(ResultLine {
                ok,
                number,
                name,
                directive
            })
        )
    }

    #[test]
    fn results() {
        let shown = |line| format!("{:?}", parse(line).1);
        assert_eq!(shown("ok 1 a"), result(true, 1, "a", Directive::None));
        assert_eq!(
            shown("not ok 12 - two words"),
            result(false, 12, "two words", Directive::None)
        );
        assert_eq!(
            shown("ok 1 a # SKIP no x2apic"),
            result(true, 1, "a", Directive::Skip("no x2apic"))
        );
        assert_eq!(
            shown("ok 1 a # SKIP"),
            result(true, 1, "a", Directive::Skip(""))
        );
        assert_eq!(
            shown("not ok 1 a # TIMEOUT"),
            result(false, 1, "a", Directive::Timeout)
        );
        assert_eq!(
            shown("ok 1 a # other"),
            result(true, 1, "a", Directive::None)
        );
    }

    #[test]
    fn levels() {
        assert_eq!(parse("1..3"), (0, Item::Plan(3)));
        assert_eq!(parse("    1..3"), (1, Item::Plan(3)));
        assert_eq!(parse("        1..3"), (2, Item::Plan(3)));
        assert!(matches!(parse("  1..3"), (0, Item::Malformed(_))));
        // Diagnostics may be indented at will.
        assert_eq!(parse("     # x == 1"), (1, Item::Diagnostic("x == 1")));
        assert_eq!(parse("#   x == 1"), (0, Item::Diagnostic("  x == 1")));
    }

    #[test]
    fn comments() {
        assert_eq!(parse("    # Subtest: ipi").1, Item::Subtest("ipi"));
        assert_eq!(parse("    # run: ipi.pairs").1, Item::Run("ipi.pairs"));
        assert_eq!(parse("# kunit: shuffle seed 42").1, Item::Seed("42"));
        let totals = Totals {
            passed: 1,
            failed: 2,
            skipped: 3,
        };
        assert_eq!(
            parse("# kunit: 1 passed, 2 failed, 3 skipped").1,
            Item::Totals(totals)
        );
        assert!(matches!(
            parse("# kunit: 1 passed, 2 failed").1,
            Item::Diagnostic(_)
        ));
        assert!(matches!(
            parse("# kunit: x passed, 2 failed, 3 skipped").1,
            Item::Diagnostic(_)
        ));
        assert_eq!(parse("#").1, Item::Diagnostic(""));
    }

    #[test]
    fn malformed() {
        for line in [
            "ok",
            "not ok",
            "ok x",
            "ok 1",
            "ok 1 # SKIP",
            "ok -1 a",
            "ok +1 a",
            "1..",
            "1..x",
            "1..-1",
        ] {
            assert!(matches!(parse(line).1, Item::Malformed(_)), "{line}");
        }
        for line in ["1..99999999999999999999999", "ok 99999999999999999999999 a"] {
            assert!(matches!(parse(line).1, Item::Malformed(_)), "{line}");
        }
    }

    #[test]
    fn other_output() {
        for line in [
            "",
            "okay",
            "not okay",
            "[    0.1] cpu0 info: ok 1 a",
            "2..3",
            "\u{1}\u{fffd}",
            "  #0 x",
        ] {
            assert!(
                matches!(parse(line).1, Item::Other | Item::Diagnostic(_)),
                "{line}"
            );
        }
    }
}
