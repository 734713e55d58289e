//! Random inputs to the hub, and the clients of `books` to judge what comes out.

use proptest::prelude::*;

use super::books::{Step, Storm};

fn step() -> impl Strategy<Value = Step> {
    let create = (
        0usize..4,
        (0u8..8, 0u8..10),
        prop::option::of(0i64..12),
        any::<u8>(),
        prop::sample::select(vec![0i64, 0, 0, 5, -1]),
    )
        .prop_map(|(stream, range, start, flags, id)| Step::Create { stream, range, start, flags, id });
    let changes = prop::collection::vec((0u8..8, any::<bool>()), 1..4);
    prop_oneof![
        1 => Just(Step::Open),
        1 => (0usize..4).prop_map(Step::Close),
        6 => create,
        2 => (0usize..4, any::<usize>()).prop_map(|(stream, pick)| Step::Cancel { stream, pick }),
        3 => (0usize..4).prop_map(Step::Progress),
        14 => (changes, prop::bool::weighted(0.8)).prop_map(|(changes, publish)| Step::Write { changes, publish }),
        1 => Just(Step::Restore),
        1 => (0i64..6).prop_map(Step::Compact),
        3 => (1u64..600).prop_map(Step::Tick),
        8 => Just(Step::Poll),
        6 => (0usize..4, 1usize..5).prop_map(|(stream, n)| Step::Drain(stream, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 20_000, ..ProptestConfig::default() })]
    #[test]
    fn watches_keep_their_promises(steps in prop::collection::vec(step(), 1..120)) {
        let mut storm = Storm::new();
        storm.step(Step::Open);
        storm.step(Step::Open);
        for step in steps {
            storm.step(step);
        }
        storm.settle();
    }
}
