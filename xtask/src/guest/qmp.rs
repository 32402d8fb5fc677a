//! QMP, QEMU's control protocol: a line of JSON each way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};

/// How long QEMU may take to make a machine, and to answer. Only a bound
/// against waiting for ever: a busy host is slow.
const PATIENCE: Duration = Duration::from_secs(60);

/// The control connection of one QEMU.
#[derive(Debug)]
pub struct Qmp {
    socket: BufReader<UnixStream>,
}

impl Qmp {
    /// Speaks QMP on `socket`.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket: BufReader::new(socket),
        }
    }

    /// Does what the protocol demands first. When it has succeeded, the machine
    /// is made: QEMU's main loop runs.
    pub fn greet(&mut self) -> anyhow::Result<()> {
        self.socket
            .get_ref()
            .set_read_timeout(Some(PATIENCE))
            .context("cannot set a time limit")?;
        self.execute("qmp_capabilities")?;
        // Answered from the main loop, unlike the one before.
        self.execute("query-status")?;
        Ok(())
    }

    /// Executes a command without arguments, and waits for its result.
    pub fn execute(&mut self, command: &str) -> anyhow::Result<Value> {
        let mut request = json!({ "execute": command }).to_string();
        request.push('\n');
        self.socket
            .get_mut()
            .write_all(request.as_bytes())
            .context("cannot speak to QEMU")?;
        loop {
            let mut line = String::new();
            if self
                .socket
                .read_line(&mut line)
                .context("QEMU does not answer")?
                == 0
            {
                bail!("QEMU has closed the connection");
            }
            let mut answer: Value =
                serde_json::from_str(&line).context("QEMU's answer is not JSON")?;
            if let Some(error) = answer.get("error") {
                bail!(
                    "QEMU refuses `{command}`: {}",
                    error["desc"].as_str().unwrap_or("no reason given")
                );
            }
            // Else the greeting or an event, which nobody waits for.
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
        }
    }
}
