//! The kernel's virtual address space. One table, also in `docs/architecture.md`:
//!
//! | from | what |
//! |---|---|
//! | `0xffff_8880_0000_0000` | physical memory, writable, never executable (64 TiB) |
//! | `0xffff_c900_0000_0000` | vmalloc (24 TiB) |
//! | `0xffff_e400_0000_0000` | device registers, uncached (1 TiB) |
//! | `0xffff_e900_0000_0000` | stacks, each with a guard (1 TiB) |
//! | `0xffff_ea00_0000_0000` | descriptors of page frames (256 GiB) |
//! | `0xffff_ec00_0000_0000` | CPUs' own memory, a window for each CPU (4 GiB) |
//! | `0xffff_f000_0000_0000` | where the loader puts what it hands over; unmapped later |
//! | `0xffff_ffff_8020_0000` | the kernel image |

/// A page, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// Physical address 0 appears here.
pub const PHYS_MAP: u64 = 0xffff_8880_0000_0000;
/// End of the range that [`PHYS_MAP`] may use.
pub const PHYS_MAP_END: u64 = 0xffff_c880_0000_0000;
/// Where vmalloc maps memory.
pub const VMALLOC: u64 = 0xffff_c900_0000_0000;
/// End of the vmalloc range.
pub const VMALLOC_END: u64 = 0xffff_e100_0000_0000;
/// Device registers are mapped from here upwards.
pub const MMIO: u64 = 0xffff_e400_0000_0000;
/// End of the device range.
pub const MMIO_END: u64 = 0xffff_e500_0000_0000;
/// Stacks, one slot of [`STACK_SLOT`] bytes each.
pub const STACKS: u64 = 0xffff_e900_0000_0000;
/// Distance between two stacks' tops, guard included.
pub const STACK_SLOT: u64 = 128 * 1024;
/// The descriptor of page frame 0; those of the others follow.
pub const FRAME_MAP: u64 = 0xffff_ea00_0000_0000;
/// End of the range that descriptors may use: 64 bytes for each frame of 16 TiB.
pub const FRAME_MAP_END: u64 = 0xffff_ea40_0000_0000;
/// Every possible CPU's own memory, one window of [`PERCPU_WINDOW`] bytes each. All of them are
/// in one entry of the top table, which is there before other CPUs start.
pub const PERCPU: u64 = 0xffff_ec00_0000_0000;
/// Distance between two CPUs' windows.
pub const PERCPU_WINDOW: u64 = 64 << 20;
/// Loader's choice range, start.
pub const LOADER: u64 = 0xffff_f000_0000_0000;
/// Loader's choice range, end.
pub const LOADER_END: u64 = 0xffff_f800_0000_0000;

/// The kernel virtual address of a physical one. It is mapped only where the memory map
/// reports memory.
pub const fn phys_to_virt(phys: u64) -> u64 {
    PHYS_MAP + phys
}

/// Rounds down to a page.
pub const fn page_down(addr: u64) -> u64 {
    addr & !(PAGE_SIZE - 1)
}

/// Rounds up to a page.
pub const fn page_up(addr: u64) -> u64 {
    page_down(addr + (PAGE_SIZE - 1))
}
