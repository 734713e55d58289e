//! The JSON lines that etcdctl writes to standard error beside its own sentences, for those who parse them.

use std::time::Duration;

use super::output::json::string;

/// Seconds since 1970.
#[allow(clippy::disallowed_types)] // A time stamp for people; nothing is decided by it.
fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// `2026-11-20T23:22:18.197Z` for a time since 1970 (days to date: H. Hinnant, "chrono-compatible low-level
/// date algorithms").
fn rfc3339(since: Duration) -> String {
    let seconds = since.as_secs();
    let days = (seconds / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

/// Which logger a line is under: etcdctl's clients for all endpoints, or for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logger {
    /// The client of a command.
    Command,
    /// A client made for one endpoint by `endpoint health`.
    Single,
}

/// A call failed and may be tried again.
pub fn call_failed(logger: Logger, endpoint: &str, attempt: u32, error: &str) {
    let now = now();
    let (stamp, name) = match logger {
        Logger::Command => (string(&rfc3339(now)), "etcd-client"),
        Logger::Single => (format!("{:.7}", now.as_secs_f64()), "client"),
    };
    eprintln!(
        "{{\"level\":\"warn\",\"ts\":{stamp},\"logger\":\"{name}\",\"caller\":\"ctl/client.rs\",\
         \"msg\":\"retrying of unary invoker failed\",\"target\":{},\"attempt\":{attempt},\"error\":{}}}",
        string(&format!("etcd-endpoints://{endpoint}")),
        string(error)
    );
}

/// A variable and its flag were both given.
pub fn fatal_conflict(variable: &str) {
    eprintln!(
        "{{\"level\":\"fatal\",\"ts\":{:.7},\"caller\":\"ctl/globals.rs\",\"msg\":\"conflicting environment variable \
         is shadowed by corresponding command-line flag (either unset environment variable or disable flag))\",\
         \"environment-variable\":{}}}",
        now().as_secs_f64(),
        string(variable)
    );
}

/// A variable means nothing here.
pub fn unknown_variable(pair: &str) {
    eprintln!(
        "{{\"level\":\"warn\",\"ts\":{:.7},\"caller\":\"ctl/globals.rs\",\"msg\":\"unrecognized environment variable\",\
         \"environment-variable\":{}}}",
        now().as_secs_f64(),
        string(pair)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stamps_are_dates() {
        assert_eq!(rfc3339(Duration::ZERO), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(Duration::from_millis(1_709_210_096_789)), "2024-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(Duration::from_millis(1_795_216_938_197)), "2026-11-20T23:22:18.197Z");
    }
}
