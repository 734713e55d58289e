//! What could make two runs of one seed differ, and what is done about each.
//!
//! | what | what is done |
//! | --- | --- |
//! | order of hash maps | pure modules have none (`clippy.toml` bans them); the simulator has none |
//! | real time | members ask `Runtime::clock`; `clippy.toml` bans the others; a run's own duration is never looked at |
//! | randomness of the process | members ask `Runtime::entropy`; all draws come from [`crate::rng`] |
//! | unbiased `select!` | every one is `biased` (`tests/style.rs`) |
//! | threads | `storm` has one for each run; nothing in a run starts another |
//! | addresses of memory | nothing is ordered or hashed by them |
//! | order of wake-ups of `tokio::sync::watch`, which draws from randomness of its thread | `storm` puts what is ready in order before the next is drawn ([`crate::storm::Executor`]); a run of `whole` has a process of its own |
//! | statics | members share none that changes |
//!
//! `run --twice` runs each seed two times and compares the hashes of all that happened: messages, batches with their
//! state hashes, answers and watch responses, each with its time.
//! `.ci/agree` compares those of a debug build and of an optimized one: what only one of them does (assertions with an
//! effect, arithmetic that wraps) would show.
