//! The shapes of machine on which the in-kernel suites run.

use super::scenario::{Layout, Shape};

/// A shape with the name it has in the names of cases.
#[derive(Clone, Debug)]
pub struct NamedShape {
    /// The name: `4cpu-2node`.
    pub name: String,
    /// The shape.
    pub shape: Shape,
}

/// CPUs and nodes when none are asked for.
const USUAL: [(u32, u32); 3] = [(1, 1), (4, 2), (8, 4)];

/// The usual shapes, or the one that is asked for.
pub fn chosen(cpus: Option<u32>, nodes: Option<u32>) -> Vec<NamedShape> {
    if cpus.is_none() && nodes.is_none() {
        return USUAL.map(|(cpus, nodes)| named(cpus, nodes)).into();
    }
    let cpus = cpus.unwrap_or(4);
    // As `run` does: two nodes where there are CPUs for two.
    vec![named(cpus, nodes.unwrap_or(cpus.min(2)))]
}

fn named(cpus: u32, nodes: u32) -> NamedShape {
    let name = if nodes == 1 {
        format!("{cpus}cpu")
    } else {
        format!("{cpus}cpu-{nodes}node")
    };
    let options = format!("--cpus {cpus} --nodes {nodes}");
    NamedShape {
        name,
        shape: Shape {
            options,
            layout: Layout::Even,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(cpus: Option<u32>, nodes: Option<u32>) -> Vec<String> {
        chosen(cpus, nodes)
            .into_iter()
            .map(|shape| shape.name)
            .collect()
    }

    #[test]
    fn three_shapes_or_the_one_asked_for() {
        assert_eq!(names(None, None), ["1cpu", "4cpu-2node", "8cpu-4node"]);
        assert_eq!(names(Some(1), None), ["1cpu"]);
        assert_eq!(names(Some(16), None), ["16cpu-2node"]);
        assert_eq!(names(None, Some(1)), ["4cpu"]);
        assert_eq!(names(Some(3), Some(3)), ["3cpu-3node"]);
    }
}
