//! Wrong frees are reported, and change nothing.

use mm::percpu::UNIT;

use crate::memory::{CHUNKS, audited, layout, machine};

#[test]
fn wrong_frees_are_refused() {
    let (machine, memory) = machine(2, 1, 64);
    machine.run(|| {
        let a = memory.alloc(layout(48, 16)).unwrap();
        let b = memory.alloc(layout(40, 8)).unwrap();
        assert_eq!((a, b), (64, 112));
        let before = audited(&memory).unwrap();
        let refused = |offset, size, why: &str| {
            // SAFETY: refused.
            unsafe { memory.free(offset, layout(size, 1)) };
            let text = memory.backing().reports.lock().unwrap().pop();
            let text = text.expect("a report");
            assert!(text.contains(why), "{text}");
            assert!(
                text.starts_with("free of a bad per-CPU address, asked for at "),
                "{text}"
            );
            assert_eq!(audited(&memory).unwrap(), before);
        };
        refused(a + 8, 48, "no allocation can begin there");
        refused(a + 16, 32, "it is in the middle of an allocation");
        refused(a, 32, "48 bytes are allocated there");
        refused(a, 64, "48 bytes are allocated there");
        // As long as both together.
        refused(a, 96, "48 bytes are allocated there");
        refused(b, 56, "48 bytes are allocated there");
        refused(b + 48, 16, "nothing is allocated there");
        refused(0, 64, "it is in the middle of an allocation");
        refused(UNIT, 16, "there is no per-CPU memory");
        refused(CHUNKS * UNIT, 16, "there is no per-CPU memory");
        refused(usize::MAX & !15, 16, "there is no per-CPU memory");
        // SAFETY: allocated so.
        unsafe { memory.free(a, layout(48, 16)) };
        let after = audited(&memory).unwrap();
        // SAFETY: refused.
        unsafe { memory.free(a, layout(48, 16)) };
        let text = memory.backing().reports.lock().unwrap().pop();
        assert!(
            text.expect("a report")
                .contains("nothing is allocated there")
        );
        assert_eq!(audited(&memory).unwrap(), after);
    });
}
