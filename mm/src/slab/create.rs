//! Creation of caches: what is asked for is checked and becomes a [`Plan`], for which there is
//! a cache already ([`merge`](super::merge)), or one is made.

use core::{fmt, ptr::NonNull};

use platform::{
    MAX_NODES, NodeId,
    percpu::PerCpu,
    sync::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Cell, Ordering},
};

use super::{
    Constructor, Destructor, Hooks, KmemCache, Machine, Slabs, Spec, Stage,
    debug::CacheDebug,
    kept::Kept,
    layout::{BadSpec, ObjectLayout, default_min_partial},
    name::Name,
    node::Node,
    percpu::CpuSlab,
    records::Ending,
    sheaf::Sheaf,
    spec::Flags,
};
use crate::{Gfp, kvfree_rcu::hands::Hands};

/// Why there is no cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// The name is empty, longer than [`Name::MAX`], or has blanks or other bytes that a name
    /// may not have.
    BadName,
    /// Another cache has that name, which cannot be merged with this one.
    NameTaken,
    /// Objects of 0 bytes, or of more than the largest slab has.
    BadSize(usize),
    /// No power of two, or larger than a page.
    BadAlign(usize),
    /// Flags that callers may not give.
    BadFlags(Flags),
    /// The link does not fit there: beyond the object, or at no multiple of 8.
    BadFreePointer(usize),
    /// A place for the link, without constructor and TYPESAFE_BY_RCU: then it may lie anywhere
    /// in a free object.
    NeedlessFreePointer,
    /// Bytes for users that lie beyond the object: where they begin, and how many.
    BadUsercopy(usize, usize),
    /// More objects in a sheaf than [`MAX_CAPACITY`].
    BadSheafCapacity(u32),
    /// There is no memory.
    NoMemory,
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName => write!(
                f,
                "not a name for a cache: 1 to {} visible characters but '/'",
                Name::MAX
            ),
            Self::NameTaken => f.write_str("another cache has that name"),
            Self::BadSize(size) => write!(f, "objects of {size} bytes"),
            Self::BadAlign(align) => write!(f, "an alignment of {align} bytes"),
            Self::BadFlags(flags) => write!(f, "flags that are not for callers: {flags}"),
            Self::BadFreePointer(at) => write!(f, "a free object's link cannot lie at {at}"),
            Self::NeedlessFreePointer => {
                f.write_str("a place for the link without constructor or TYPESAFE_BY_RCU")
            }
            Self::BadUsercopy(at, len) => {
                write!(f, "{len} bytes for users from {at} on, beyond the object")
            }
            Self::BadSheafCapacity(capacity) => write!(f, "sheaves of {capacity} objects"),
            Self::NoMemory => f.write_str("no memory"),
        }
    }
}

impl core::error::Error for CreateError {}

impl From<BadSpec> for CreateError {
    fn from(bad: BadSpec) -> Self {
        match bad {
            BadSpec::NoBytes => Self::BadSize(0),
            BadSpec::TooLarge(size) => Self::BadSize(size),
            BadSpec::Align(align) => Self::BadAlign(align),
            BadSpec::FreePointer(at) => Self::BadFreePointer(at),
            BadSpec::NeedlessFreePointer => Self::NeedlessFreePointer,
        }
    }
}

/// The most objects that a sheaf may have: as many as fit into the largest kmalloc cache.
pub const MAX_CAPACITY: u32 =
    ((super::kmalloc::MAX_CACHED - Sheaf::bytes(0)) / size_of::<NonNull<u8>>()) as u32;

/// Objects of a sheaf, by the size of objects: Linux's numbers, rounded up to fill the kmalloc
/// object that the sheaf lies in. Full sheaves are memory that nobody else has, so a sheaf
/// of small objects is one that saves many trips to the slabs and costs little, and one of large
/// objects holds few: all sheaves of a CPU and a barn's share hold about as many bytes.
///
/// | objects of up to | sheaf lies in | objects in it |
/// |---|---|---|
/// | 255 bytes | 512 bytes | 62 |
/// | 1023 bytes | 256 bytes | 30 |
/// | 4095 bytes | 128 bytes | 14 |
/// | more | 64 bytes | 6 |
pub const fn default_capacity(size: usize) -> u32 {
    let bytes = match size {
        ..256 => 512,
        256..1024 => 256,
        1024..4096 => 128,
        _ => 64,
    };
    ((bytes - Sheaf::bytes(0)) / size_of::<NonNull<u8>>()) as u32
}

/// A cache to be, with everything decided.
pub(crate) struct Plan {
    pub name: Name,
    pub flags: Flags,
    pub layout: ObjectLayout,
    pub constructor: Option<Constructor>,
    pub destructor: Option<Destructor>,
    /// 0: without sheaves.
    pub sheaf_capacity: u32,
    pub usercopy: (u32, u32),
}

impl Plan {
    /// What `spec` asks for, with flags that callers need not be allowed, and with those of
    /// `slub_debug=`.
    pub fn new<M: Machine>(slabs: &Slabs<M>, spec: &Spec<'_>) -> Result<Self, CreateError> {
        let name = Name::new(spec.name).ok_or(CreateError::BadName)?;
        let (start, len) = spec.usercopy.unwrap_or((0, 0));
        if start.checked_add(len).is_none_or(|end| end > spec.size) {
            return Err(CreateError::BadUsercopy(start, len));
        }
        if let Some(capacity) = spec.sheaf_capacity
            && capacity > MAX_CAPACITY
        {
            return Err(CreateError::BadSheafCapacity(capacity));
        }
        let flags = slabs.debug.flags_for(spec.name, spec.flags);
        let layout = ObjectLayout::new(spec, flags, M::possible_cpus().count())?;
        let sheaf_capacity = if flags.intersects(Flags::DEBUG | Flags::NO_SHEAVES) {
            0
        } else {
            let default = default_capacity(layout.size as usize);
            spec.sheaf_capacity.unwrap_or(default)
        };
        Ok(Self {
            name,
            flags,
            layout,
            constructor: spec.constructor,
            destructor: spec.destructor,
            sheaf_capacity,
            usercopy: (start as u32, len as u32),
        })
    }
}

impl<M: Machine> Slabs<M> {
    /// A cache as `spec` wants it: a new one, or one that exists and is as good
    /// ([`KmemCache::aliases`]), which then has a further name. May sleep.
    ///
    /// # Errors
    ///
    /// [`CreateError`].
    ///
    /// # Panics
    ///
    /// On an error, with [`Flags::PANIC`].
    #[track_caller]
    pub fn create(&self, spec: &Spec<'_>) -> Result<&KmemCache<M>, CreateError> {
        let result = self.try_create(spec);
        if let Err(error) = result
            && spec.flags.contains(Flags::PANIC)
        {
            panic!("slab cache {:?} cannot be created: {error}", spec.name);
        }
        result
    }

    fn try_create(&self, spec: &Spec<'_>) -> Result<&KmemCache<M>, CreateError> {
        let own = spec.flags.difference(Flags::CALLERS);
        if !own.is_empty() {
            return Err(CreateError::BadFlags(own));
        }
        let plan = Plan::new(self, spec)?;
        let caches = self.caches();
        if let Some(cache) = caches.find_mergeable(&plan) {
            self.add_alias(cache, plan.name)?;
            // SAFETY: it lives until it is destroyed by all who created it.
            return Ok(unsafe { NonNull::from(cache).as_ref() });
        }
        if caches.find_live(plan.name.as_str()).is_some() {
            return Err(CreateError::NameTaken);
        }
        let cache = self.make(&plan).ok_or(CreateError::NoMemory)?;
        // SAFETY: just made; it lives until it is destroyed.
        let cache = unsafe { cache.as_ref() };
        self.registry.link(cache);
        Ok(cache)
    }

    /// Makes the cache of a plan, which nobody knows yet.
    fn make(&self, plan: &Plan) -> Option<NonNull<KmemCache<M>>> {
        let memory = self.cache_cache().alloc(Gfp::KERNEL)?;
        let at = memory.cast::<KmemCache<M>>();
        let node_of = |node| Some(self.node_cache().alloc_node(Gfp::KERNEL, node)?.cast());
        // SAFETY: an object of the cache of descriptors is memory for one.
        if unsafe { self.make_at(at, plan, node_of) } {
            return Some(at);
        }
        // SAFETY: allocated above; nothing is in it.
        unsafe { self.cache_cache().free(memory) };
        None
    }

    /// Writes the descriptor of a cache, with memory for its nodes' parts from `node_of`. `false`: there is no memory, nothing
    /// is written, and `node_of`'s memory was given back to the cache of nodes.
    ///
    /// # Safety
    ///
    /// `at` is memory for a descriptor, and `node_of` gives memory for nodes (if it does at all); both are the caller's.
    pub(crate) unsafe fn make_at(
        &self,
        at: NonNull<KmemCache<M>>,
        plan: &Plan,
        mut node_of: impl FnMut(NodeId) -> Option<NonNull<Node<M>>>,
    ) -> bool {
        let mm = self.mm();
        let home = |cpu| {
            let node = M::node_of(cpu);
            mm.nearest_memory(node).unwrap_or(node)
        };
        let Some(cpus) = PerCpu::try_new(|cpu| CpuSlab::new(at, home(cpu))) else {
            return false;
        };
        #[cfg(feature = "slab_stats")]
        let Some(stats) = PerCpu::try_new(|_| core::array::from_fn(|_| AtomicU64::new(0))) else {
            return false;
        };
        let nodes: [_; MAX_NODES] = core::array::from_fn(|_| AtomicPtr::new(core::ptr::null_mut()));
        for id in mm.nodes().iter() {
            let Some(node) = node_of(id) else {
                // SAFETY: made below, and known to nobody.
                unsafe { self.free_nodes(&nodes) };
                return false;
            };
            // SAFETY: memory for a node, as the caller promises.
            unsafe { node.write(Node::new(id)) };
            // Relaxed: published with the cache.
            nodes[id.index()].store(node.as_ptr(), Ordering::Relaxed);
        }
        let mut hooks = self.debug.hooks_for(plan.flags, plan.constructor.is_some());
        hooks |= self
            .quarantine
            .hooks_for(plan.flags, plan.constructor.is_some());
        hooks.set(Hooks::NUMA, mm.nodes().count() > 1);
        let cache = KmemCache {
            cpus,
            hooks: AtomicU32::new(hooks.bits()),
            sheaf_capacity: AtomicU32::new(plan.sheaf_capacity),
            layout: plan.layout,
            flags: plan.flags,
            constructor: plan.constructor,
            destructor: plan.destructor,
            slabs: NonNull::from(self),
            nodes,
            min_partial: AtomicU32::new(default_min_partial(plan.layout.size as usize)),
            remote_node_defrag_ratio: AtomicU32::new(0),
            secret: self.debug.secret(),
            id: self.registry.next_id(),
            name: plan.name,
            usercopy: plan.usercopy,
            older: AtomicPtr::new(core::ptr::null_mut()),
            aliases: AtomicPtr::new(core::ptr::null_mut()),
            references: AtomicU32::new(1),
            boxes: AtomicBool::new(false),
            holders: AtomicU64::new(1),
            next_gone: AtomicPtr::new(core::ptr::null_mut()),
            deferred: AtomicU64::new(0),
            hands: Hands::new(),
            kept: Kept::new(),
            stage: AtomicU8::new(Stage::Live as u8),
            ending: Cell::new(Ending::default()),
            debug: CacheDebug::new(),
            #[cfg(feature = "slab_stats")]
            stats,
        };
        // SAFETY: as the caller promises.
        unsafe { at.write(cache) };
        true
    }

    /// Gives nodes' parts back to the cache that they come from.
    ///
    /// # Safety
    ///
    /// They came from there, and nobody uses them any more.
    pub(crate) unsafe fn free_nodes(&self, nodes: &[AtomicPtr<Node<M>>; MAX_NODES]) {
        for node in nodes {
            // Relaxed: they are the caller's.
            if let Some(node) = NonNull::new(node.load(Ordering::Relaxed)) {
                // SAFETY: as the caller promises.
                unsafe {
                    node.drop_in_place();
                    self.node_cache().free(node.cast());
                }
            }
        }
    }
}
