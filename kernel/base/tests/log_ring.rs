//! The log ring against a plain queue.

use std::collections::VecDeque;

use kernel_base::log_ring::{LogRing, MAX_TEXT, Meta};
use log::Level;
use platform::CpuId;
use proptest::prelude::*;

const SIZE: usize = 2048;
const HEADER: usize = 12;

fn meta(time_ns: u64, cpu: u32, level: Level) -> Meta {
    Meta {
        time_ns,
        cpu: CpuId::new(cpu).unwrap(),
        level,
    }
}

#[test]
fn records_look_like_log_lines() {
    let mut ring = LogRing::<SIZE>::new();
    assert!(ring.is_empty());
    ring.push(meta(0, 0, Level::Error), "");
    ring.push(meta(61_000_002_999, 63, Level::Trace), "two\nlines");
    ring.push_fmt(meta(1, 1, Level::Warn), format_args!("{}+{}", 1, 2));
    ring.push_fmt(meta(1, 1, Level::Debug), format_args!("plain"));
    let lines: Vec<_> = ring.iter().map(|record| record.to_string()).collect();
    assert_eq!(
        lines,
        [
            "[    0.000000] cpu0 error: ",
            "[   61.000002] cpu63 trace: two\nlines",
            "[    0.000000] cpu1 warn: 1+2",
            "[    0.000000] cpu1 debug: plain",
        ]
    );
    assert!(ring.iter().next().unwrap().text.is_empty());
    ring.clear();
    assert_eq!((ring.len(), ring.dropped(), ring.iter().count()), (0, 0, 0));
}

#[test]
fn long_text_is_cut_at_a_character() {
    let mut ring = LogRing::<SIZE>::new();
    let text = "x".to_string() + &"ä".repeat(MAX_TEXT);
    ring.push(meta(0, 0, Level::Info), &text);
    ring.push_fmt(meta(0, 0, Level::Info), format_args!("{text}{text}"));
    assert_eq!((ring.len(), ring.dropped()), (1, 1));
    assert!(ring.iter().all(|record| record.text.len() == MAX_TEXT - 1));
    assert!(text.starts_with(&ring.iter().next().unwrap().text.to_string()));
}

#[test]
fn const_in_a_static() {
    static RING: LogRing<4096> = LogRing::new();
    assert_eq!(RING.len(), 0);
}

proptest! {
    #[test]
    fn keeps_the_newest_that_fit(texts in prop::collection::vec("\\PC{0,120}", 1..120)) {
        let mut ring = LogRing::<SIZE>::new();
        let mut queue = VecDeque::new();
        let mut dropped = 0;
        for (i, text) in texts.into_iter().enumerate() {
            let meta = meta(i as u64 * 1000, i as u32 % 64, Level::Info);
            ring.push(meta, &text);
            queue.push_back((meta, text));
            while queue.iter().map(|(_, text)| HEADER + text.len()).sum::<usize>() > SIZE {
                queue.pop_front();
                dropped += 1;
            }
            prop_assert_eq!(ring.len(), queue.len());
            prop_assert_eq!(ring.dropped(), dropped);
            let read: Vec<_> = ring.iter().map(|r| (r.meta, r.text.to_string())).collect();
            prop_assert!(read.iter().eq(queue.iter()));
        }
    }
}
