//! Takes a panic report apart, to see that it came out whole.

use regex::Regex;

use crate::test::ktap::panic_message;

/// What a panic report has to say.
#[derive(Clone, Debug)]
pub struct PanicExpected {
    /// Matches the message.
    pub message: String,
    /// Whether an exception is the cause, whose frame has all registers; a panic in
    /// the code shows only where it was.
    pub exception: bool,
    /// How many CPUs have to show a backtrace.
    pub cpus: usize,
    /// Matches a function in the backtrace of the CPU that panicked.
    pub function: String,
}

/// A panic report: from its first line to `=== END OF PANIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PanicReport {
    cpu: usize,
    message: String,
    registers: Vec<String>,
    backtraces: Vec<Backtrace>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Backtrace {
    cpu: usize,
    frames: Vec<String>,
}

impl PanicReport {
    /// The one report in `lines`.
    pub fn find(lines: &[String]) -> Result<Self, String> {
        let mut starts = lines.iter().enumerate().filter_map(|(at, line)| {
            let message = panic_message(line)?.strip_prefix("KERNEL PANIC on cpu")?;
            Some((at, message))
        });
        let (start, head) = starts.next().ok_or("there is no panic report")?;
        if let Some((_, second)) = starts.next() {
            return Err(format!("there is a second panic report: {second}"));
        }
        if let Some(nested) = lines
            .iter()
            .find(|line| line.contains("=== PANIC IN PANIC"))
        {
            return Err(format!("the panic report was cut short: {nested}"));
        }
        let body = &lines[start + 1..];
        let length = body
            .iter()
            .position(|line| line.contains("=== END OF PANIC"))
            .ok_or("the panic report has no end")?;
        let (cpu, message) = head
            .split_once(": ")
            .ok_or("the panic report has no message")?;
        let mut report = Self {
            cpu: cpu
                .parse()
                .map_err(|_| format!("`{cpu}` is no number of a CPU"))?,
            message: message.into(),
            registers: Vec::new(),
            backtraces: Vec::new(),
        };
        for line in &body[..length] {
            report.line(line);
        }
        Ok(report)
    }

    fn line(&mut self, line: &str) {
        let text = line.trim_end();
        if let Some(cpu) = backtrace_head(text) {
            self.backtraces.push(Backtrace {
                cpu,
                frames: Vec::new(),
            });
        } else if let Some(backtrace) = self.backtraces.last_mut() {
            if text.starts_with("  #") {
                backtrace.frames.push(text.trim_start().into());
            } else if let (Some(frame), true) =
                (backtrace.frames.last_mut(), text.contains(" inlined at "))
            {
                // Symbolising adds what was inlined into the function of a frame.
                frame.push(' ');
                frame.push_str(text.trim_start());
            }
        } else {
            self.registers.push(text.to_ascii_lowercase());
        }
    }

    /// Compares it with what is expected.
    pub fn check(&self, expected: &PanicExpected) -> Result<(), String> {
        let mut wrong = Vec::new();
        if !regex(&expected.message)?.is_match(&self.message) {
            wrong.push(format!(
                "the message `{}` does not match /{}/",
                self.message, expected.message
            ));
        }
        let registers: &[&str] = match expected.exception {
            true => &[
                "rip", "rsp", "rbp", "rflags", "rax", "r15", "cr0", "cr2", "cr3", "cr4",
            ],
            false => &["rip", "rbp", "cr0", "cr2", "cr3", "cr4"],
        };
        for register in registers {
            let named = regex(&format!(r"\b{register}\b\W*(0x)?[0-9a-f]+"))?;
            if !self.registers.iter().any(|line| named.is_match(line)) {
                wrong.push(format!("the register {register} is not shown"));
            }
        }
        let frame = regex(r"^#\d+ 0x[0-9a-f]{16} \S.*\+0x[0-9a-f]+")?;
        for cpu in 0..expected.cpus {
            match self
                .backtraces
                .iter()
                .filter(|backtrace| backtrace.cpu == cpu)
                .collect::<Vec<_>>()[..]
            {
                [] => wrong.push(format!("there is no backtrace of cpu{cpu}")),
                [one] if !one.frames.iter().any(|line| frame.is_match(line)) => {
                    wrong.push(format!(
                        "the backtrace of cpu{cpu} has no frame with a symbol"
                    ));
                }
                [_] => {}
                _ => wrong.push(format!("there are two backtraces of cpu{cpu}")),
            }
        }
        let own = self
            .backtraces
            .iter()
            .filter(|backtrace| backtrace.cpu == self.cpu);
        let frames: Vec<_> = own.flat_map(|backtrace| &backtrace.frames).collect();
        let function = regex(&expected.function)?;
        let named: Vec<_> = frames
            .iter()
            .filter(|line| function.is_match(line))
            .collect();
        // An instruction that the compiler made up has no line; the caller's has.
        let place = regex(r" at \S+\.rs:\d+")?;
        match named.first() {
            None => wrong.push(format!(
                "no frame of cpu{} matches /{}/",
                self.cpu, expected.function
            )),
            Some(first) if !named.iter().any(|line| place.is_match(line)) => {
                wrong.push(format!("a frame has no file and line: {first}"));
            }
            Some(_) => {}
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("; "))
        }
    }
}

/// The number of the CPU in `backtrace of cpu<N>:`.
fn backtrace_head(line: &str) -> Option<usize> {
    let rest = line.trim_start().strip_prefix("backtrace of cpu")?;
    rest.split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn regex(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| format!("/{pattern}/ is no regular expression: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
[    0.1] cpu0 info: shell: panic pf
=== KERNEL PANIC on cpu1: page fault: write to 0x0000000000000000
  rax 0000000000000001  rbx 0000000000000002
  r15 0000000000000001  rip ffffffff80201234  rsp ffffe90000000ff0  rbp 0000000000000000
  rflags 0x10046  cr0 80010033  cr2=0x0000000000000000 cr3: 0x1000  cr4 00000000000006e8
backtrace of cpu0:
  #0 0xffffffff80201234 kernel::idle+0x12 at kernel/src/idle.rs:10
backtrace of cpu1:
  #0 0xffffffff80205678 <kernel::A as kernel::B>::page_fault+0x1f at kernel/src/a.rs:3
  #1 0xffffffff80205679 kernel::main+0x9 at kernel/src/main.rs:7
=== END OF PANIC
";

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    fn expected() -> PanicExpected {
        PanicExpected {
            message: "page fault".into(),
            exception: true,
            cpus: 2,
            function: "page_fault".into(),
        }
    }

    fn check(text: &str) -> Result<(), String> {
        PanicReport::find(&lines(text))?.check(&expected())
    }

    #[track_caller]
    fn assert_wrong(text: &str, what: &str) {
        let error = check(text).expect_err("something is wrong");
        assert!(error.contains(what), "{error}");
    }

    #[test]
    fn a_whole_report() {
        assert_eq!(check(REPORT), Ok(()));
    }

    #[test]
    fn an_inlined_function_belongs_to_its_frame() {
        let text = REPORT.replace(
            "page_fault+0x1f at kernel/src/a.rs:3",
            "main+0x1f at kernel/src/a.rs:3\n        (page_fault inlined at kernel/src/b.rs:9)",
        );
        assert_eq!(check(&text), Ok(()));
    }

    #[test]
    fn parts_that_are_missing() {
        assert_wrong("", "no panic report");
        assert_wrong(&REPORT.replace("=== END OF PANIC", ""), "no end");
        assert_wrong(
            &REPORT.replace("page fault: write", "double fault"),
            "does not match",
        );
        assert_wrong(&REPORT.replace("cr2", "xx2"), "register cr2");
        assert_wrong(
            &REPORT.replace("backtrace of cpu0:", ""),
            "no backtrace of cpu0",
        );
        assert_wrong(
            &REPORT.replace("kernel::idle+0x12", "?"),
            "cpu0 has no frame with a symbol",
        );
        assert_wrong(
            &REPORT.replace("page_fault", "other"),
            "no frame of cpu1 matches",
        );
        assert_wrong(
            &REPORT.replace(" at kernel/src/a.rs:3", ""),
            "no file and line",
        );
        assert_wrong(
            &REPORT.replace("backtrace of cpu0", "backtrace of cpu1"),
            "two backtraces of cpu1",
        );
    }

    #[test]
    fn a_panic_in_the_code_needs_fewer_registers() {
        let text = REPORT
            .replace("rsp", "xxx")
            .replace("r15", "xxx")
            .replace("rax", "xxx");
        assert_wrong(&text, "the register rsp is not shown");
        let report = PanicReport::find(&lines(&text)).expect("there is a report");
        assert_eq!(
            report.check(&PanicExpected {
                exception: false,
                ..expected()
            }),
            Ok(())
        );
    }

    #[test]
    fn reports_that_run_into_each_other() {
        assert_wrong(&format!("{REPORT}{REPORT}"), "second panic report");
        let nested = REPORT.replace("backtrace of cpu1:", "=== PANIC IN PANIC on cpu1: x");
        assert_wrong(&nested, "cut short");
    }
}
