//! Voters, learners and joint configurations.
