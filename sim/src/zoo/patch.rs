//! A patch's header: what is planted, and who should see it.

/// A planted bug.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// Its row in the zoo.
    pub id: String,
    /// How hard it is to find: T1 to T4.
    pub tier: String,
    /// Which oracle is meant to see it.
    pub oracle: String,
    /// All of the file, which `git apply` reads.
    pub text: String,
}

impl Patch {
    /// Reads a patch. A header's line that begins with blanks goes on with the one before.
    ///
    /// # Errors
    /// If a line that it needs is missing, or there is no diff.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (header, diff) = text.split_once("diff --git ").ok_or("it has no diff")?;
        if diff.is_empty() {
            return Err("its diff is empty".into());
        }
        let field = |name: &str| {
            let line = header.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned()).ok_or_else(|| format!("it has no line {name}:"))
        };
        Ok(Self { id: field("Id")?, tier: field("Tier")?, oracle: field("Oracle")?, text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read() {
        let text = "Id: R01\nTier: T3\nReference: a#1\nMechanism: long\n  Tier: no\nOracle: raft\n\ndiff --git a/x b/x\n";
        let patch = Patch::parse(text).expect("it is whole");
        assert_eq!((patch.id.as_str(), patch.tier.as_str(), patch.oracle.as_str()), ("R01", "T3", "raft"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(Patch::parse("Id: R01\ndiff --git a/x b/x\n").unwrap_err().contains("Tier"));
        assert!(Patch::parse("Id: R01\nTier: T1\nOracle: raft\n").unwrap_err().contains("diff"));
    }
}
