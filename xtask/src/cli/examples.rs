//! The examples at the end of each `--help`.

pub const TOP: &str = "\
Examples:
  cargo xtask run                     boot, with a shell on the serial console
  cargo xtask test                    all quick tests, on the host and in the kernel
  cargo xtask doctor                  what is needed, and what is missing

`cargo xtask COMMAND --help` has the options of a command, with examples.";

pub const RUN: &str = "\
Examples:
  cargo xtask run                             4 CPUs on 2 nodes, 512 MiB
  cargo xtask run --cpus 8 --nodes 4 --mem 2G
  cargo xtask run -- \"mem; cpus\"              run commands and end with their status
  cargo xtask run --icount --cpus 1           exact: one instruction is one nanosecond
  cargo xtask run --firmware uefi             from a disk image, by way of OVMF
  cargo xtask run --cmdline loglevel=debug --timeout 60
  cargo xtask run < lines                     type the lines of a file into the shell
  cargo xtask run --dry-run                   only print the QEMU command line

In the shell, Ctrl-A x ends QEMU; Ctrl-C and line editing belong to the guest.
Input from a file or pipe is typed once the shell is there; its last line should
be poweroff.

Status: 0 if all went well, that of the commands (1 to 31) if they failed, 1 for
other failures (a panic, no output, QEMU itself), 2 for a wrong option.";

pub const TEST: &str = "\
Examples:
  cargo xtask test                            everything quick
  cargo xtask test 'ipi.*'                    only what matches
  cargo xtask test --cpus 2 --nodes 1         on one machine of this shape
  cargo xtask test --preemptible 'rcu*.*'     with RCU's other flavour
  cargo xtask test --long                     everything, for its stated duration
  CI=true cargo xtask test                    everything, with durations cut to a fiftieth
  cargo xtask test --sanitize thread 'host/granary-mm/slab_*'
  cargo xtask test --torture 10m --cpus 8     torture RCU; --preemptible: the other flavour
  cargo xtask test --torture 5s --icount --cpus 4 --seed 7    a run that repeats exactly";

pub const BENCH: &str = "\
Examples:
  cargo xtask bench --machine icount                          count instructions, 1 CPU
  cargo xtask bench --machine mttcg --filter sched            wall time, 4 CPUs
  cargo xtask bench --machine icount4 --json base.json        keep the figures
  cargo xtask bench --machine icount4 --baseline base.json    what got worse?

Figures go to standard output, one line each; all else goes to standard error.

Worse than the baseline: on icount and icount4 more than 2 instructions per operation and
more than 1 %; elsewhere, where the host does other things as well, more than 50 % and
20 ns, and no round as good as the worst of the baseline.

Status: 0 if all went well, 1 if a workload went wrong, got worse or can no longer run, or
nothing could be measured, 2 for a wrong option. A workload that a machine has too few CPUs
for is skipped, and said to be; that alone is no failure.";

pub const IMAGE: &str = "\
Examples:
  cargo xtask image                           a disk image under target/
  cargo xtask image --release -o granary.img
  cargo xtask image --cmdline 'loglevel=debug maxcpus=2'";

pub const GDB: &str = "\
Examples:
  cargo xtask gdb                             boot paused, stop at the kernel's main
  cargo xtask gdb --cpus 1 --release
  cargo xtask gdb --batch -ex bt              drive GDB from a script
  cargo xtask run --gdb-port 1234             then, elsewhere:
  cargo xtask gdb --attach :1234

Options of xtask come first; from the first one it does not know, all go to GDB.";

pub const DOCTOR: &str = "\
Examples:
  cargo xtask doctor                          fails if `run` or `test` would lack something";

pub const CHECK: &str = "\
Examples:
  cargo xtask check                           what CI checks before it tests";
