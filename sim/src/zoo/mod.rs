//! The zoo: patches that plant historic bugs, and the score of the simulator against them.
//!
//! ```text
//!   sim/zoo/R01.patch ─▶ scratch copy of the checkout ─▶ cargo build ─▶ run --seeds … ─▶ a row of the score
//!                                  ▲                                                        │
//!                                  └──────────── as it was, for the next patch ◀────────────┘
//! ```
//!
//! The scratch copy and its builds stay between rows and calls, so each row builds only what its patch changes. The
//! checkout itself is never touched. Left out: shrinking what was caught.

mod patch;
mod score;
mod scratch;

pub use self::{
    patch::Patch,
    score::{End, Row, score},
    scratch::{Catch, Scratch},
};
