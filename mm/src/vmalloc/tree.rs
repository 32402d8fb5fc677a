//! All ranges of the address space in one balanced tree by address, and in a list.
//!
//! Ranges are adjacent and leave nothing out, so neighbours in the list are neighbours in
//! the address space, and freed ranges merge without a search. Every node knows the largest
//! free range of its subtree: the lowest range that fits is found by one way down.
//!
//! An AVL tree: its height is at most 1.44 times the logarithm of the number of ranges, and
//! so is the depth of the recursion here.

use super::node::{Link, NodeRef, Range};

/// A search for an aligned range that found so many free ranges too small only because of
/// the alignment looks for one that is large enough with any alignment.
const PATIENCE: u32 = 64;

/// The tree. Its nodes are in nobody else's hands in so far as their links go.
pub(super) struct Tree {
    root: Link,
}

fn height(link: Link) -> u8 {
    link.map_or(0, |node| node.height.get())
}

fn largest(link: Link) -> usize {
    link.map_or(0, |node| node.largest.get())
}

/// Computes what a node says of its subtree.
fn update(node: NodeRef) {
    let (left, right) = (node.left.get(), node.right.get());
    node.height.set(1 + height(left).max(height(right)));
    let below = largest(left).max(largest(right));
    node.largest.set(below.max(node.free_size()));
}

fn rotate_right(node: NodeRef) -> NodeRef {
    let Some(top) = node.left.get() else {
        return node;
    };
    node.left.set(top.right.get());
    top.right.set(Some(node));
    update(node);
    update(top);
    top
}

fn rotate_left(node: NodeRef) -> NodeRef {
    let Some(top) = node.right.get() else {
        return node;
    };
    node.right.set(top.left.get());
    top.left.set(Some(node));
    update(node);
    update(top);
    top
}

/// Restores the balance at a node whose subtrees are balanced; the subtree's new top.
fn balance(node: NodeRef) -> NodeRef {
    update(node);
    let (left, right) = (height(node.left.get()), height(node.right.get()));
    if left > right + 1 {
        if let Some(child) = node.left.get()
            && height(child.right.get()) > height(child.left.get())
        {
            node.left.set(Some(rotate_left(child)));
        }
        rotate_right(node)
    } else if right > left + 1 {
        if let Some(child) = node.right.get()
            && height(child.left.get()) > height(child.right.get())
        {
            node.right.set(Some(rotate_right(child)));
        }
        rotate_left(node)
    } else {
        node
    }
}

fn insert(link: Link, node: NodeRef) -> NodeRef {
    let Some(here) = link else {
        update(node);
        return node;
    };
    if node.start.get() < here.start.get() {
        here.left.set(Some(insert(here.left.get(), node)));
    } else {
        here.right.set(Some(insert(here.right.get(), node)));
    }
    balance(here)
}

/// Takes the first node out of a subtree: the node, and what remains.
fn take_first(node: NodeRef) -> (NodeRef, Link) {
    match node.left.get() {
        None => (node, node.right.get()),
        Some(left) => {
            let (first, rest) = take_first(left);
            node.left.set(rest);
            (first, Some(balance(node)))
        }
    }
}

fn remove(link: Link, node: NodeRef) -> Link {
    let here = link?;
    if here == node {
        return match (here.left.get(), here.right.get()) {
            (None, other) | (other, None) => other,
            (left, Some(right)) => {
                let (first, rest) = take_first(right);
                first.left.set(left);
                first.right.set(rest);
                Some(balance(first))
            }
        };
    }
    if node.start.get() < here.start.get() {
        here.left.set(remove(here.left.get(), node));
    } else {
        here.right.set(remove(here.right.get(), node));
    }
    Some(balance(here))
}

/// Where an aligned range of `size` bytes fits into `node`.
fn place(node: NodeRef, size: usize, align: usize) -> Option<usize> {
    let start = node.start.get().checked_next_multiple_of(align)?;
    let end = start.checked_add(size)?;
    (end <= node.end.get()).then_some(start)
}

impl Tree {
    pub(super) const fn new() -> Self {
        Self { root: None }
    }

    /// Adds a node directly above `below` (or as the first).
    pub(super) fn insert(&mut self, node: NodeRef, below: Link) {
        node.left.set(None);
        node.right.set(None);
        let above = match below {
            Some(below) => below.above.get(),
            None => self.first(),
        };
        node.below.set(below);
        node.above.set(above);
        if let Some(below) = below {
            below.above.set(Some(node));
        }
        if let Some(above) = above {
            above.below.set(Some(node));
        }
        self.root = Some(insert(self.root, node));
    }

    /// The lowest node.
    pub(super) fn first(&self) -> Link {
        core::iter::successors(self.root, |node| node.left.get()).last()
    }

    /// Takes a node out.
    pub(super) fn remove(&mut self, node: NodeRef) {
        self.root = remove(self.root, node);
        let (below, above) = (node.below.take(), node.above.take());
        if let Some(below) = below {
            below.above.set(above);
        }
        if let Some(above) = above {
            above.below.set(below);
        }
    }

    /// A node's state or size has changed (not its place among the others).
    pub(super) fn changed(&mut self, node: NodeRef) {
        fn along(here: NodeRef, node: NodeRef) {
            if here != node {
                let child = if node.start.get() < here.start.get() {
                    here.left.get()
                } else {
                    here.right.get()
                };
                if let Some(child) = child {
                    along(child, node);
                }
            }
            update(here);
        }
        if let Some(root) = self.root {
            along(root, node);
        }
    }

    /// The node whose range has `address`.
    pub(super) fn at(&self, address: usize) -> Link {
        let mut link = self.root;
        while let Some(node) = link {
            link = if address < node.start.get() {
                node.left.get()
            } else if address >= node.end.get() {
                node.right.get()
            } else {
                return Some(node);
            };
        }
        None
    }

    /// The node, if there is only one.
    pub(super) fn only(&self) -> Link {
        self.root.filter(|root| root.height.get() == 1)
    }

    /// The size of the largest free range.
    pub(super) fn largest_free(&self) -> usize {
        largest(self.root)
    }

    /// The lowest free range with room for `size` bytes at a multiple of `align`, and the
    /// address there. (Of those that have room, not always the lowest if many have it only
    /// without the alignment.)
    pub(super) fn lowest(&self, size: usize, align: usize) -> Option<(NodeRef, usize)> {
        fn search(link: Link, size: usize, align: usize, patience: &mut u32) -> Link {
            let node = link.filter(|node| node.largest.get() >= size)?;
            if let Some(found) = search(node.left.get(), size, align, patience) {
                return Some(found);
            }
            if *patience == 0 {
                return None;
            }
            if node.state.get() == Range::Free && node.size() >= size {
                if place(node, size, align).is_some() {
                    return Some(node);
                }
                *patience -= 1;
            }
            search(node.right.get(), size, align, patience)
        }
        let mut patience = PATIENCE;
        let mut found = search(self.root, size, align, &mut patience);
        if found.is_none() && patience == 0 {
            // Large enough wherever it begins: the first that is found will do.
            let any = size.checked_add(align - crate::frame::PAGE_SIZE)?;
            found = search(self.root, any, align, &mut PATIENCE.clone());
        }
        let node = found?;
        Some((node, place(node, size, align)?))
    }

    /// Looks whether everything is as it should be: order, balance, sums, neighbours, no two
    /// free ranges side by side. The number of nodes.
    pub(super) fn check(&self) -> Result<usize, &'static str> {
        /// `last` is the node below the subtree, and then its highest.
        fn walk(link: Link, last: &mut Link) -> Result<usize, &'static str> {
            let Some(node) = link else { return Ok(0) };
            let (left, right) = (node.left.get(), node.right.get());
            let nodes = walk(left, last)?;
            if node.below.get() != *last || last.is_some_and(|last| last.above.get() != link) {
                return Err("neighbours do not know each other");
            }
            if last.is_some_and(|last| last.end.get() != node.start.get()) {
                return Err("neighbours are not side by side");
            }
            let free = |node: NodeRef| node.state.get() == Range::Free;
            if free(node) && last.is_some_and(free) {
                return Err("free ranges side by side");
            }
            if node.size() == 0 {
                return Err("an empty range");
            }
            if height(left).abs_diff(height(right)) > 1 {
                return Err("the tree is out of balance");
            }
            let (height, size) = (node.height.get(), node.largest.get());
            update(node);
            if (height, size) != (node.height.get(), node.largest.get()) {
                return Err("a node does not know its subtree");
            }
            *last = link;
            Ok(nodes + 1 + walk(right, last)?)
        }
        let mut last = None;
        let nodes = walk(self.root, &mut last)?;
        match last {
            Some(last) if last.above.get().is_some() => Err("something is above the last"),
            _ => Ok(nodes),
        }
    }
}
