//! Rules: the name of what a violation breaks, and what it means to somebody who has never seen it.

/// The rule that a violation's text names: what stands before its time or its colon, without numbers. A panic's rule
/// is its place, since a member can panic in many.
pub fn of(violation: &str) -> String {
    if let Some(place) = violation.split("panicked at ").nth(1).filter(|_| violation.starts_with("panic")) {
        let place = place.split_whitespace().next().unwrap_or(place);
        return format!("panic {}", place.trim_end_matches(':'));
    }
    let end = [" at ", ":"].iter().filter_map(|mark| violation.find(mark)).min();
    let words = violation[..end.unwrap_or(violation.len())].split_whitespace();
    words.filter(|word| !word.chars().all(|c| c.is_ascii_digit())).collect::<Vec<_>>().join(" ")
}

/// Whether some violation breaks this rule.
pub fn is_broken(rule: &str, violations: &[String]) -> bool {
    violations.iter().any(|violation| of(violation) == rule)
}

/// What is promised where this rule is kept, in a sentence or two.
pub fn in_plain_words(rule: &str) -> &'static str {
    let known = WORDS.iter().find(|(name, _)| rule == *name);
    known.or_else(|| WORDS.iter().find(|(name, _)| rule.starts_with(name))).map_or(
        "Something happened that no correct cluster would ever show; the sentence below says what.",
        |(_, words)| words,
    )
}

/// Longest names first where one begins another.
const WORDS: [(&str, &str); 45] = [
    (
        "linear/stale",
        "Whoever asks after a write was acknowledged must see that write. Here an answer was older than what \
         somebody already knew.",
    ),
    (
        "linear/write-in-the-past",
        "A write that begins after a revision was seen gets a later one. Here it got an earlier one.",
    ),
    (
        "linear/one-write-a-revision",
        "Each revision belongs to one write. Here two calls say that they made the same one.",
    ),
    (
        "linear/serializable",
        "A serializable read may be old, but it shows the store as it once was. Here it shows a state that never was.",
    ),
    (
        "linear/refused-but-done",
        "What is refused has no effect. Here a refused call did something all the same.",
    ),
    ("linear/refused", "A call is refused only where its reason holds. Here it was refused without one."),
    (
        "linear/unexplained-revision",
        "Every change comes from some client's call. Here the store changed and no call explains it: a write \
         was lost, done twice, or made up.",
    ),
    (
        "linear/read",
        "A read shows exactly the store as of its revision. Here it shows something else: an acknowledged write \
         is missing or wrong.",
    ),
    ("linear/write", "A write's answer says what the write did. Here it says something else."),
    (
        "linear/",
        "All clients together see one store that each call changes at one moment. Here no such order exists.",
    ),
    (
        "watch/reliable",
        "A watch misses nothing. Here it was told of a later revision without ever hearing of an earlier event.",
    ),
    (
        "watch/late",
        "An open watch hears of every event in the end. Here it never did, with the cluster in peace.",
    ),
    (
        "watch/ordered",
        "A watch gets events in the order of their revisions. Here one came after a later one.",
    ),
    ("watch/unique", "A watch gets each event once. Here it came twice."),
    ("watch/atomic", "All events of one revision come together. Here they came apart without a word of it."),
    (
        "watch/bookmark",
        "A progress notice promises that all up to it has been told. Here something older came after it.",
    ),
    ("watch/prev-kv", "A watch that asks for it is told what was there before. Here that is wrong."),
    ("watch/event", "A watch is told what really happened. Here it was told something else."),
    ("watch/compact", "A watch is ended by a compaction only if what it wants is gone. Here it was not."),
    (
        "watch/",
        "A watch is told every event in its range, once, in order, and what it is told is true. Here it was not.",
    ),
    ("compaction/gone", "What was compacted can't be read any more. Here it still was."),
    (
        "compaction/",
        "Only what was compacted is refused as compacted, and only what is not yet is refused as future.",
    ),
    ("lease/early", "A lease lives as long as it was granted and renewed for. Here it ended sooner."),
    ("lease/immortal", "A lease that nobody renews ends. Here it went on."),
    (
        "lease/",
        "A lease ends when its time is over, not before; its keys go with it; what has ended stays so.",
    ),
    ("locks/exclusive", "One client at a time holds a lock. Here two did."),
    (
        "locks/turn",
        "Who is told that it is its turn is the first in line. Here it was not, or had lost its place.",
    ),
    ("locks/", "A lock goes to whoever has waited longest. Here it did not."),
    ("authz/permitted", "Nobody reads or changes what no role of theirs permits. Here somebody did."),
    ("authz/denied", "What somebody's roles permit is not denied to them. Here it was."),
    ("authz/watch", "A watch is made only for who may read all of its range. Here it was otherwise."),
    (
        "authz/",
        "Who is who, and who may do what, is what the last changes of users and roles made it. Here it was not.",
    ),
    ("raft/one-leader", "A term has at most one leader. Here it had two."),
    ("raft/one-vote", "A member votes once a term, and remembers it through a crash. Here it voted twice."),
    (
        "raft/durable",
        "What a member promised is on its disk first. Here a crash took away something that it had promised.",
    ),
    ("raft/committed", "What is committed never changes. Here it did."),
    ("raft/leader-completeness", "A new leader has all that was committed. Here it lacked some of it."),
    (
        "raft/",
        "Raft's own rules: one leader a term, logs that agree, nothing committed is lost, nothing promised before it is durable.",
    ),
    ("state/hash", "Members that have applied the same entries hold the same data. Here two differ."),
    ("state/", "Members that have applied the same entries are in the same state. Here two differ."),
    (
        "members/",
        "Members are what was asked for, and whoever lists them names those by which raft counts. Here it did not.",
    ),
    ("liveness", "When all faults are over, the cluster answers again within a bound. Here it did not."),
    ("panic", "A member's process never panics, whatever peers, clients and disks do to it. Here it did."),
    (
        "member ended by itself",
        "A member goes on as long as its disk is sound. Here it stopped, or refused to start, without a fault of its disk.",
    ),
    (
        "determinism",
        "The same seed gives the same run. Here two runs differ, so something leaks into the simulator.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_has_no_numbers_and_no_times() {
        assert_eq!(of("linear/stale at 1.200000s: call 3 [calls 3]"), "linear/stale");
        assert_eq!(of("liveness: 30 s after the last fault"), "liveness");
        assert_eq!(of("member 3 ended by itself: EIO"), "member ended by itself");
        assert_eq!(of("panic: panicked at src/raft/log.rs:12:5: no"), "panic src/raft/log.rs:12:5");
        assert_eq!(of("nothing was left"), "nothing was left");
    }

    #[test]
    fn words_for_the_nearest_rule() {
        assert!(in_plain_words("linear/stale").contains("older"));
        assert!(in_plain_words("linear/new-rule").contains("one store"));
        assert!(in_plain_words("panic src/a.rs:1:1").contains("panics"));
        assert!(in_plain_words("what nobody knows").contains("no correct cluster"));
    }
}
