//! Who takes part: CPUs that come and go, and threads that were switched away in sections.

use core::ptr::NonNull;

use platform::{
    Platform,
    sync::{Ordering, fence},
};

use super::{Kind, Tree};
use crate::{arrows::Arrow, blocked::Entry};

impl<P: Platform> Tree<P> {
    /// A CPU comes: on that CPU, before its first section, interrupts off.
    pub fn online(&self, cpu: usize) {
        let (leaf, bit) = self.geometry.leaf_of(cpu);
        let mut state = self.nodes[leaf].lock();
        debug_assert!(state.online & bit == 0, "the CPU is there already");
        state.online |= bit;
        drop(state);
        self.arrows.take(Arrow::CpuComes);
        // SeqCst: as at a report, before the CPU's first section.
        fence(Ordering::SeqCst);
    }

    /// A CPU goes: on that CPU, after its last section, interrupts off. Of which kinds the
    /// grace period has been waiting for it last.
    pub fn offline(&self, cpu: usize) -> [bool; 2] {
        let (leaf, bit) = self.geometry.leaf_of(cpu);
        let mut state = self.nodes[leaf].lock();
        debug_assert!(state.online & bit != 0, "the CPU is not there");
        state.online &= !bit;
        let owing = state.mask.iter().any(|mask| mask & bit != 0);
        drop(state);
        self.arrows.take(if owing {
            Arrow::CpuGoesOwing
        } else {
            Arrow::CpuGoes
        });
        [Kind::Normal, Kind::Expedited].map(|kind| self.report(cpu, kind))
    }

    /// A thread is switched away on a CPU, in a section. Whether a grace period waits for
    /// the section: then the CPU, which is in none any more, is to report.
    ///
    /// # Safety
    ///
    /// The entry is the thread's, is on no list, and stays where it is until it is taken
    /// off; the caller runs on that CPU, with interrupts off.
    pub unsafe fn block(&self, cpu: usize, entry: NonNull<Entry>, thread: u32) -> [bool; 2] {
        let (leaf, bit) = self.geometry.leaf_of(cpu);
        let mut state = self.nodes[leaf].lock();
        // A CPU that has not reported may have been in the section when the grace period
        // began; one that has began it after that.
        let blocks = state.mask.map(|mask| mask & bit != 0);
        // SAFETY: as the caller promises; under the leaf's lock.
        unsafe { state.blocked.push(entry, leaf, blocks, thread) };
        self.arrows.take(if blocks.contains(&true) {
            Arrow::ReaderBlocks
        } else {
            Arrow::ReaderQueued
        });
        blocks
    }

    /// The section of a thread ends that was switched away in it. Of which kinds the grace
    /// period has been waiting for it last.
    ///
    /// # Safety
    ///
    /// The entry is on the list of `leaf`, and the caller is its thread.
    pub unsafe fn unblock(&self, leaf: usize, entry: NonNull<Entry>) -> [bool; 2] {
        let mut state = self.nodes[leaf].lock();
        // SAFETY: as the caller promises; under the leaf's lock.
        let blocked = unsafe { state.blocked.remove(entry) };
        let kinds = [Kind::Normal, Kind::Expedited];
        let last = kinds.map(|kind| blocked[kind as usize] && state.is_empty(kind));
        drop(state);
        self.arrows.take(if last.contains(&true) {
            Arrow::ReaderLast
        } else {
            Arrow::ReaderLeaves
        });
        kinds.map(|kind| last[kind as usize] && self.up(leaf, kind))
    }
}
