//! Which watches a key concerns: single keys by an ordered map, ranges by an interval tree.
//!
//! The tree is a treap over (start, end) whose nodes know the furthest end below them, so a look-up visits the
//! ranges that hold the key and a path to each. Priorities come from a counter: the shape is the same in
//! each run. Watches of the same keys share a node.

use std::{collections::BTreeMap, sync::Arc};

use super::{StreamId, WatchId};
use crate::types::{KeyRange, RangeEnd};

/// A watch, hub-wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatchKey {
    pub stream: StreamId,
    pub id: WatchId,
}

/// Where a range ends; the order is that of ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Before(Arc<[u8]>),
    Unbounded,
}

impl End {
    fn is_above(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => end.as_ref() > key,
            Self::Unbounded => true,
        }
    }
}

/// The keys of a watch, in bytes of their own: a request's buffer must not live as long as a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: Arc<[u8]>,
    /// None: the one key.
    end: Option<End>,
}

impl Span {
    pub fn of(range: &KeyRange) -> Self {
        let end = match &range.end {
            RangeEnd::Single => None,
            RangeEnd::Before(end) => Some(End::Before(Arc::from(end.as_ref()))),
            RangeEnd::Unbounded => Some(End::Unbounded),
        };
        Self { start: Arc::from(range.start.as_ref()), end }
    }
}

/// The watches of one span: mostly one.
#[derive(Debug)]
enum Holders {
    One(WatchKey),
    Many(Vec<WatchKey>),
}

impl Holders {
    fn add(&mut self, key: WatchKey) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, key]),
            Self::Many(all) => all.push(key),
        }
    }

    /// Takes `key` out; true if none is left.
    fn remove(&mut self, key: WatchKey) -> bool {
        match self {
            Self::One(first) => *first == key,
            Self::Many(all) => {
                if let Some(at) = all.iter().position(|held| *held == key) {
                    all.swap_remove(at);
                }
                all.is_empty()
            }
        }
    }

    fn each(&self, found: &mut impl FnMut(WatchKey)) {
        match self {
            Self::One(key) => found(*key),
            Self::Many(all) => all.iter().for_each(|key| found(*key)),
        }
    }
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    points: BTreeMap<Arc<[u8]>, Holders>,
    ranges: Tree,
}

impl Index {
    /// Adds a watch, which must not be there.
    pub fn insert(&mut self, span: &Span, key: WatchKey) {
        match &span.end {
            Some(end) => self.ranges.insert(&span.start, end, key),
            None => match self.points.get_mut(&span.start) {
                Some(holders) => holders.add(key),
                None => {
                    self.points.insert(span.start.clone(), Holders::One(key));
                }
            },
        }
    }

    /// Takes a watch out, if it is there.
    pub fn remove(&mut self, span: &Span, key: WatchKey) {
        match &span.end {
            Some(end) => self.ranges.remove(&span.start, end, key),
            None => {
                if self.points.get_mut(&span.start).is_some_and(|holders| holders.remove(key)) {
                    self.points.remove(&span.start);
                }
            }
        }
    }

    /// Calls `found` with each watch that `key` concerns, once.
    pub fn matches(&self, key: &[u8], mut found: impl FnMut(WatchKey)) {
        if let Some(holders) = self.points.get(key) {
            holders.each(&mut found);
        }
        self.ranges.stab(self.ranges.root, key, &mut found);
    }
}

type Link = Option<u32>;

#[derive(Debug)]
struct Node {
    start: Arc<[u8]>,
    end: End,
    /// The furthest end of this subtree.
    furthest: End,
    priority: u64,
    left: Link,
    right: Link,
    holders: Holders,
}

#[derive(Debug, Default)]
struct Tree {
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    root: Link,
    made: u64,
}

impl Tree {
    fn node(&self, at: u32) -> &Node {
        self.nodes[at as usize].as_ref().expect("links lead to nodes in use")
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        self.nodes[at as usize].as_mut().expect("links lead to nodes in use")
    }

    fn find(&self, start: &[u8], end: &End) -> Link {
        let mut at = self.root;
        while let Some(here) = at {
            let node = self.node(here);
            at = match (start, end).cmp(&(node.start.as_ref(), &node.end)) {
                std::cmp::Ordering::Less => node.left,
                std::cmp::Ordering::Greater => node.right,
                std::cmp::Ordering::Equal => return at,
            };
        }
        None
    }

    fn insert(&mut self, start: &Arc<[u8]>, end: &End, key: WatchKey) {
        if let Some(at) = self.find(start, end) {
            self.node_mut(at).holders.add(key);
            return;
        }
        self.made += 1;
        let node = Node {
            start: start.clone(),
            end: end.clone(),
            furthest: end.clone(),
            priority: scramble(self.made),
            left: None,
            right: None,
            holders: Holders::One(key),
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = Some(node);
                at
            }
            None => {
                self.nodes.push(Some(node));
                u32::try_from(self.nodes.len() - 1).expect("4 billion nodes do not fit in memory")
            }
        };
        let (below, above) = self.split(self.root, start, end);
        let left = self.merge(below, Some(at));
        self.root = self.merge(left, above);
    }

    fn remove(&mut self, start: &[u8], end: &End, key: WatchKey) {
        let Some(at) = self.find(start, end) else { return };
        if self.node_mut(at).holders.remove(key) {
            self.root = self.cut(self.root, at);
            self.nodes[at as usize] = None;
            self.free.push(at);
        }
    }

    /// The subtree without `gone`, which is in it.
    fn cut(&mut self, at: Link, gone: u32) -> Link {
        let here = at.expect("the path to a node that is there");
        let (left, right) = (self.node(here).left, self.node(here).right);
        if here == gone {
            return self.merge(left, right);
        }
        let (node, target) = (self.node(here), self.node(gone));
        if (&target.start, &target.end) < (&node.start, &node.end) {
            self.node_mut(here).left = self.cut(left, gone);
        } else {
            self.node_mut(here).right = self.cut(right, gone);
        }
        self.refresh(here);
        at
    }

    /// The subtree's nodes below (start, end), and the others.
    fn split(&mut self, at: Link, start: &[u8], end: &End) -> (Link, Link) {
        let Some(here) = at else { return (None, None) };
        let node = self.node(here);
        let (left, right) = (node.left, node.right);
        if (node.start.as_ref(), &node.end) < (start, end) {
            let (below, above) = self.split(right, start, end);
            self.node_mut(here).right = below;
            self.refresh(here);
            (at, above)
        } else {
            let (below, above) = self.split(left, start, end);
            self.node_mut(here).left = above;
            self.refresh(here);
            (below, at)
        }
    }

    /// One tree of two, the first of which is below the second.
    fn merge(&mut self, below: Link, above: Link) -> Link {
        let (Some(low), Some(high)) = (below, above) else { return below.or(above) };
        if self.node(low).priority > self.node(high).priority {
            let right = self.node(low).right;
            self.node_mut(low).right = self.merge(right, above);
            self.refresh(low);
            below
        } else {
            let left = self.node(high).left;
            self.node_mut(high).left = self.merge(below, left);
            self.refresh(high);
            above
        }
    }

    fn refresh(&mut self, at: u32) {
        let node = self.node(at);
        let children = [node.left, node.right].into_iter().flatten().map(|child| &self.node(child).furthest);
        let furthest = children.chain([&node.end]).max().expect("its own end, at least").clone();
        self.node_mut(at).furthest = furthest;
    }

    fn stab(&self, at: Link, key: &[u8], found: &mut impl FnMut(WatchKey)) {
        let Some(here) = at else { return };
        let node = self.node(here);
        if !node.furthest.is_above(key) {
            return;
        }
        self.stab(node.left, key, found);
        if node.start.as_ref() <= key {
            if node.end.is_above(key) {
                node.holders.each(found);
            }
            self.stab(node.right, key, found);
        }
    }
}

/// Spreads a counter over all 64 bits (the finalizer of SplitMix64).
pub(super) fn scramble(n: u64) -> u64 {
    let mut z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = KeyRange> {
        (0u8..20, 0u8..24).prop_map(|(start, end)| {
            let start = Bytes::copy_from_slice(&[start]);
            let end = match end {
                0 => RangeEnd::Single,
                1 => RangeEnd::Unbounded,
                end => RangeEnd::Before(Bytes::copy_from_slice(&[end])),
            };
            KeyRange { start, end }
        })
    }

    /// Look-ups recurse: their depth must not be for clients to choose.
    #[test]
    fn ranges_that_come_in_order_make_no_list() {
        fn depth(tree: &Tree, at: Link) -> usize {
            at.map_or(0, |at| 1 + depth(tree, tree.node(at).left).max(depth(tree, tree.node(at).right)))
        }
        let mut index = Index::default();
        for n in 0..4096u32 {
            let start = Bytes::copy_from_slice(&n.to_be_bytes());
            let range = KeyRange { start, end: RangeEnd::Unbounded };
            index.insert(&Span::of(&range), WatchKey { stream: StreamId(0), id: WatchId(n.into()) });
        }
        let depth = depth(&index.ranges, index.ranges.root);
        assert!((12..60).contains(&depth), "{depth}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn finds_what_a_scan_finds(
            ranges in prop::collection::vec(range(), 1..60),
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut index = Index::default();
            let mut model = BTreeMap::new();
            for (n, range) in ranges.iter().enumerate() {
                let key = WatchKey { stream: StreamId(n as u64 % 3), id: WatchId(n as i64) };
                index.insert(&Span::of(range), key);
                model.insert(key, range.clone());
            }
            for pick in gone {
                let n = pick.index(ranges.len());
                let key = WatchKey { stream: StreamId(n as u64 % 3), id: WatchId(n as i64) };
                if let Some(range) = model.remove(&key) {
                    index.remove(&Span::of(&range), key);
                }
            }
            for byte in 0..26 {
                let mut found = Vec::new();
                index.matches(&[byte], |key| found.push(key));
                found.sort();
                let wanted: Vec<_> =
                    model.iter().filter(|(_, range)| range.contains(&[byte])).map(|(key, _)| *key).collect();
                prop_assert_eq!(found, wanted);
            }
        }

        #[test]
        fn knows_the_furthest_ends(ranges in prop::collection::vec(range(), 1..60)) {
            let mut index = Index::default();
            for (n, range) in ranges.iter().enumerate() {
                index.insert(&Span::of(range), WatchKey { stream: StreamId(0), id: WatchId(n as i64) });
            }
            for node in index.ranges.nodes.iter().flatten() {
                for child in [node.left, node.right].into_iter().flatten() {
                    prop_assert!(index.ranges.node(child).furthest <= node.furthest);
                    prop_assert!(index.ranges.node(child).priority <= node.priority);
                }
            }
        }
    }
}
