//! Tests of the Raft core: golden scripts of its rules, and storms of random faults.

mod cluster;
mod show;
mod storm;

#[test]
fn storms() {
    let seeds = std::env::var("KONTIKI_STORMS").ok().and_then(|seeds| {
        let (from, to) = seeds.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    let (mut committed, mut answered) = (0, 0);
    for seed in seeds.unwrap_or(0..60) {
        let result = std::panic::catch_unwind(|| storm::run(seed, 3000));
        let (entries, reads) =
            result.unwrap_or_else(|_| panic!("seed {seed} fails: KONTIKI_STORMS={seed}..{}", seed + 1));
        committed += entries;
        answered += reads;
    }
    println!("{committed} entries committed, {answered} reads answered");
    assert!(committed > 1000 && answered > 100, "the storms were too strong to show anything");
}
