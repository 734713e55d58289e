//! Boxes of ASCII: headers centred, cells to the right, long cells wrapped at spaces.

use super::{
    Format, Printed, Printer, Reply, Unsupported,
    simple::{member_row, status_row},
};
use crate::cli::ctl::go;

/// Cells are wrapped at this many characters, unless one word is longer.
const CELL_MAX: usize = 30;

/// See the module.
pub struct Table;

impl Printer for Table {
    fn format(&self) -> Format {
        Format::Table
    }

    fn print(&self, reply: &Reply) -> Result<Printed, Unsupported> {
        let text = match reply {
            Reply::MemberList(response) => draw(
                ["ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER"],
                response.members.iter().map(member_row),
            ),
            Reply::Status(list) => draw(
                [
                    "ENDPOINT",
                    "ID",
                    "VERSION",
                    "DB SIZE",
                    "IS LEADER",
                    "IS LEARNER",
                    "RAFT TERM",
                    "RAFT INDEX",
                    "RAFT APPLIED INDEX",
                    "ERRORS",
                ],
                list.iter().map(|(endpoint, status)| status_row(endpoint, status)),
            ),
            Reply::Health(list) => draw(
                ["ENDPOINT", "HEALTH", "TOOK", "ERROR"],
                list.iter().map(|one| {
                    [
                        one.endpoint.clone(),
                        one.error.is_none().to_string(),
                        go::format_duration(one.took),
                        one.error.clone().unwrap_or_default(),
                    ]
                }),
            ),
            Reply::HashKv(list) => {
                draw(["ENDPOINT", "HASH"], list.iter().map(|(ep, one)| [ep.clone(), one.hash.to_string()]))
            }
            Reply::Get { .. }
            | Reply::Put(_)
            | Reply::Del(_)
            | Reply::Txn(_)
            | Reply::Watch(_)
            | Reply::Grant(_)
            | Reply::Revoke(..)
            | Reply::TimeToLive(..)
            | Reply::Leases(_)
            | Reply::KeepAlive(_)
            | Reply::MemberAdd(_)
            | Reply::MemberRemove(..)
            | Reply::MemberUpdate(..)
            | Reply::MemberPromote(..)
            | Reply::Alarms(_)
            | Reply::MoveLeader(..)
            | Reply::Changed(..)
            | Reply::AuthStatus(_)
            | Reply::UserGet(..)
            | Reply::UserList(_)
            | Reply::RoleGet(..)
            | Reply::RoleList(_) => return Err(Unsupported::format("table")),
        };
        Ok(text.into())
    }
}

fn draw<const N: usize>(headers: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[Vec<String>; N]> = rows.map(|row| row.map(|cell| wrap(&cell))).collect();
    let mut widths = headers.map(str::len);
    for (column, width) in widths.iter_mut().enumerate() {
        let cells = rows.iter().flat_map(|row| &row[column]);
        *width = cells.map(|line| line.chars().count()).fold(*width, usize::max);
    }
    let border = format!("+{}+\n", widths.map(|width| "-".repeat(width + 2)).join("+"));
    let mut column = 0;
    let header = headers.map(|text| {
        let spare = widths[column] - text.len();
        column += 1;
        format!("{}{text}{}", " ".repeat(spare / 2), " ".repeat(spare - spare / 2))
    });
    let mut out = format!("{border}| {} |\n{border}", header.join(" | "));
    for row in &rows {
        let height = row.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            let cells: Vec<String> = (0..N)
                .map(|at| {
                    format!("{:>width$}", row[at].get(line).map_or("", String::as_str), width = widths[at])
                })
                .collect();
            out.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
    }
    if !rows.is_empty() {
        out.push_str(&border);
    }
    out
}

/// Breaks a cell at spaces so that its lines, except the last, are as evenly full as can be.
fn wrap(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return vec![String::new()];
    }
    let lengths: Vec<usize> = words.iter().map(|word| word.chars().count()).collect();
    let limit = lengths.iter().copied().fold(CELL_MAX, usize::max);
    // best[i]: the least waste from word i on, and where the next line starts.
    let mut best = vec![(0usize, 0usize); words.len() + 1];
    for start in (0..words.len()).rev() {
        let mut length = 0;
        best[start] = (usize::MAX, start + 1);
        for end in start + 1..=words.len() {
            length += lengths[end - 1] + usize::from(end > start + 1);
            if length > limit {
                break;
            }
            let waste = if end == words.len() { 0 } else { (limit - length).pow(2) + best[end].0 };
            if waste < best[start].0 {
                best[start] = (waste, end);
            }
        }
    }
    let mut lines = Vec::new();
    let mut start = 0;
    while start < words.len() {
        let end = best[start].1;
        lines.push(words[start..end].join(" "));
        start = end;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_cells_wrap_at_spaces() {
        assert_eq!(wrap("context deadline exceeded"), ["context deadline exceeded"]);
        assert_eq!(wrap("memberID:1 alarm:NOSPACE "), ["memberID:1 alarm:NOSPACE"]);
        assert_eq!(wrap("etcdserver: rpc not supported for learner").len(), 2);
        assert_eq!(wrap(&"x".repeat(40)), ["x".repeat(40)]);
        assert_eq!(wrap(""), [""]);
    }

    #[test]
    fn a_table_without_rows_has_no_foot() {
        assert_eq!(draw(["A", "BC"], std::iter::empty()), "+---+----+\n| A | BC |\n+---+----+\n");
    }
}
