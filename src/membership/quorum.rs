//! Majorities of one configuration and of joint ones.
