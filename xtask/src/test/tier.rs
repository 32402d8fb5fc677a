//! How much testing: quick, everything, or everything with short durations.

/// The three tiers of `cargo xtask test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Everything that is quick: what one runs while working.
    Quick,
    /// Everything, each for its stated duration (`--long`).
    Long,
    /// Everything, with durations cut to a fiftieth (`CI=true` in the environment).
    Ci,
}

impl Tier {
    /// The tier that `--long` and the value of the variable `CI` ask for.
    /// `--long` wins: who types it wants it.
    pub fn choose(long: bool, ci: Option<&str>) -> Self {
        match ci {
            _ if long => Self::Long,
            Some("true" | "1") => Self::Ci,
            _ => Self::Quick,
        }
    }

    /// How much of their stated duration long tests run, in percent; `None`: what is quick.
    pub fn percent(self) -> Option<u32> {
        match self {
            Self::Quick => None,
            Self::Long => Some(100),
            Self::Ci => Some(2),
        }
    }

    /// Whether what is marked as belonging to `least` runs in this tier: a quick
    /// test always does, any other only where everything runs.
    pub fn includes(self, least: Self) -> bool {
        least == Self::Quick || self != Self::Quick
    }

    /// Whether nothing that belongs to the run may be left out for want of a
    /// tool: an image that cannot be built is a skip on somebody's laptop, but a
    /// failure under CI.
    pub fn is_strict(self) -> bool {
        self == Self::Ci
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ci_is_chosen_by_the_environment_only() {
        assert_eq!(Tier::choose(false, None), Tier::Quick);
        assert_eq!(Tier::choose(false, Some("true")), Tier::Ci);
        assert_eq!(Tier::choose(false, Some("false")), Tier::Quick);
        assert_eq!(Tier::choose(false, Some("")), Tier::Quick);
        assert_eq!(Tier::choose(true, Some("true")), Tier::Long);
        assert_eq!(Tier::choose(true, None), Tier::Long);
    }

    #[test]
    fn long_tests_are_left_out_of_the_quick_tier_only() {
        for tier in [Tier::Quick, Tier::Long, Tier::Ci] {
            assert!(tier.includes(Tier::Quick));
        }
        assert!(!Tier::Quick.includes(Tier::Long));
        assert!(Tier::Long.includes(Tier::Long));
        assert!(Tier::Ci.includes(Tier::Long));
    }
}
