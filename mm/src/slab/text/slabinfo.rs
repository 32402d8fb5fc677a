//! `/proc/slabinfo`.

use core::fmt;

use crate::slab::{Caches, Machine};

/// `/proc/slabinfo`, version 2.1. Merged caches have the line of the cache that they became a
/// part of.
pub struct SlabInfo<'a, 'b, M: Machine>(pub &'a Caches<'b, M>);

impl<M: Machine> fmt::Display for SlabInfo<'_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "slabinfo - version: 2.1")?;
        writeln!(
            f,
            "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> \
             : tunables <limit> <batchcount> <sharedfactor> \
             : slabdata <active_slabs> <num_slabs> <sharedavail>"
        )?;
        for cache in self.0.iter() {
            let (usage, layout) = (cache.usage(), cache.layout());
            let name = cache.title();
            writeln!(
                f,
                "{name:<17} {:>6} {:>6} {:>6} {:>4} {:>4} \
                 : tunables {:>4} {:>4} {:>4} : slabdata {:>6} {:>6} {:>6}",
                usage.active(),
                usage.objects,
                layout.size,
                layout.objects,
                1_u32 << layout.order,
                0,
                0,
                0,
                usage.slabs,
                usage.slabs,
                0
            )?;
        }
        Ok(())
    }
}

impl<M: Machine> fmt::Debug for SlabInfo<'_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlabInfo").finish_non_exhaustive()
    }
}
