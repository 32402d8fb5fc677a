//! Signatures only; the engine is being built.
#![allow(
    missing_docs,
    unused_variables,
    missing_debug_implementations,
    clippy::unimplemented,
    clippy::missing_safety_doc
)]
use crate::{Cookie, Function, Head, Machine};
use alloc::sync::Arc;
use core::{fmt, marker::PhantomData, ptr::NonNull};
use platform::{CpuId, SpawnError};

#[derive(Debug, Clone)]
pub struct Config {
    pub leaf_fanout: usize,
    pub fanout: usize,
    pub first_scan_ns: u64,
    pub next_scan_ns: u64,
    pub urge_ns: u64,
    pub stall_ns: u64,
    pub min_interval_ns: u64,
    pub batch: usize,
    pub high_mark: usize,
    pub slice_ns: u64,
}
impl Default for Config {
    fn default() -> Self {
        Self {
            leaf_fanout: 16,
            fanout: 64,
            first_scan_ns: 0,
            next_scan_ns: 4_000_000,
            urge_ns: 8_000_000,
            stall_ns: 21_000_000_000,
            min_interval_ns: 1_000_000,
            batch: 32,
            high_mark: 10_000,
            slice_ns: 3_000_000,
        }
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpCookie(u64);
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FullCookie {
    pub normal: Cookie,
    pub expedited: ExpCookie,
}
#[derive(Debug, Clone, Default)]
pub struct Stats {
    pub grace_periods: u64,
    pub expedited: u64,
    pub scans: u64,
    pub urged: u64,
    pub queued: u64,
    pub invoked: u64,
    pub barriers: u64,
    pub latency: [u64; 32],
}
pub struct Rcu<M: Machine>(PhantomData<fn(M)>);
impl<M: Machine> Rcu<M> {
    pub fn try_new(config: Config) -> Option<Arc<Self>> {
        unimplemented!()
    }
    pub fn start(self: &Arc<Self>) -> Result<(), SpawnError> {
        unimplemented!()
    }
    pub fn stop(&self) {
        unimplemented!()
    }
    pub fn note_switch(&self) {
        unimplemented!()
    }
    pub fn tick(&self) {
        unimplemented!()
    }
    pub fn section_ended(&self) {
        unimplemented!()
    }
    pub fn cpu_starting(&self, cpu: CpuId) {
        unimplemented!()
    }
    pub fn cpu_dying(&self, cpu: CpuId) {
        unimplemented!()
    }
    pub fn cpu_dead(&self, cpu: CpuId) {
        unimplemented!()
    }
    pub fn cpu_online(self: &Arc<Self>, cpu: CpuId) -> Result<(), SpawnError> {
        unimplemented!()
    }
    pub unsafe fn call(&self, head: NonNull<Head>, run: Function) {
        unimplemented!()
    }
    pub fn synchronize(&self) {
        unimplemented!()
    }
    pub fn synchronize_expedited(&self) {
        unimplemented!()
    }
    pub fn barrier(&self) {
        unimplemented!()
    }
    pub fn hurry(&self) {
        unimplemented!()
    }
    pub fn snap(&self) -> Cookie {
        unimplemented!()
    }
    pub fn start_poll(&self) -> Cookie {
        unimplemented!()
    }
    pub fn poll(&self, cookie: Cookie) -> bool {
        unimplemented!()
    }
    pub fn cond_synchronize(&self, cookie: Cookie) {
        unimplemented!()
    }
    pub fn snap_expedited(&self) -> ExpCookie {
        unimplemented!()
    }
    pub fn start_poll_expedited(&self) -> ExpCookie {
        unimplemented!()
    }
    pub fn poll_expedited(&self, cookie: ExpCookie) -> bool {
        unimplemented!()
    }
    pub fn cond_synchronize_expedited(&self, cookie: ExpCookie) {
        unimplemented!()
    }
    pub fn snap_full(&self) -> FullCookie {
        unimplemented!()
    }
    pub fn start_poll_full(&self) -> FullCookie {
        unimplemented!()
    }
    pub fn poll_full(&self, cookie: FullCookie) -> bool {
        unimplemented!()
    }
    pub fn cond_synchronize_full(&self, cookie: FullCookie) {
        unimplemented!()
    }
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }
    pub fn text(&self) -> impl fmt::Display + '_ {
        ""
    }
    pub fn arrows(&self) -> impl Iterator<Item = (&'static str, u64)> {
        core::iter::empty()
    }
    #[cfg(debug_assertions)]
    pub fn set_faults(&self, faults: crate::Faults) {
        unimplemented!()
    }
}
