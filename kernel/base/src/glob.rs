//! Patterns for names of test cases: `*` is any text, `?` any character.
//!
//! Matching takes at most pattern length × name length steps, whatever the
//! pattern: only the last `*` is ever tried again, since giving an earlier one
//! more text cannot help once the part behind it has been found.

/// Whether `name` matches `pattern` as a whole.
///
/// ```
/// use kernel_base::glob::matches;
/// assert!(matches("mm.*", "mm.alloc"));
/// assert!(matches("?m.a*c", "mm.alloc"));
/// assert!(!matches("mm", "mm.alloc"));
/// ```
pub fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // Where to go on after the last `*`: the pattern behind it, and the name
    // from the first character that it has not taken yet.
    let mut retry = None;
    loop {
        let here = name.clone();
        match (pattern.next(), name.next()) {
            (Some('*'), _) => {
                name = here.clone();
                retry = Some((pattern.clone(), here));
            }
            (None, None) => return true,
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => {
                let Some((behind, from)) = &mut retry else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                pattern = behind.clone();
                name = from.clone();
            }
        }
    }
}

/// Whether `name` matches one of the patterns in `list`, which have commas
/// between them. Blanks around a pattern do not count; an empty list matches
/// nothing.
///
/// ```
/// use kernel_base::glob::matches_any;
/// assert!(matches_any("rcu.*,mm.slab_?", "mm.slab_a"));
/// ```
pub fn matches_any(list: &str, name: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|pattern| !pattern.is_empty() && matches(pattern, name))
}
