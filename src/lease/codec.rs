//! etcd's row of a lease: its id as 8 bytes big endian leads to `leasepb.Lease` (id 1, TTL 2, remaining TTL 3,
//! all varints, zeros left out).

use crate::types::LeaseId;

/// The key of a lease's row.
pub(super) fn key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

/// The id that a key is of.
pub(super) fn parse_key(key: &[u8]) -> Option<LeaseId> {
    Some(LeaseId(i64::from_be_bytes(key.try_into().ok()?)))
}

/// The value of a lease's row.
pub(super) fn encode(id: LeaseId, ttl: i64, remaining: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(24);
    for (tag, value) in [(1u8, id.0), (2, ttl), (3, remaining)] {
        if value != 0 {
            out.push(tag << 3);
            put_varint(&mut out, value as u64);
        }
    }
    out
}

/// The id, TTL and remaining TTL of a row. Fields of other numbers are skipped. None if it is no such row.
pub(super) fn decode(mut bytes: &[u8]) -> Option<(LeaseId, i64, i64)> {
    let (mut id, mut ttl, mut remaining) = (0, 0, 0);
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => id = take_varint(&mut bytes)? as i64,
            (2, 0) => ttl = take_varint(&mut bytes)? as i64,
            (3, 0) => remaining = take_varint(&mut bytes)? as i64,
            (_, 0) => {
                take_varint(&mut bytes)?;
            }
            (_, 1) => bytes = bytes.get(8..)?,
            (_, 2) => {
                let len = usize::try_from(take_varint(&mut bytes)?).ok()?;
                bytes = bytes.get(len..)?;
            }
            (_, 5) => bytes = bytes.get(4..)?,
            _ => return None,
        }
    }
    Some((LeaseId(id), ttl, remaining))
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(first & 0x7f);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::wire::internalpb;

    proptest! {
        #[test]
        fn is_the_protobuf(id: i64, ttl: i64, remaining: i64) {
            let row = internalpb::Lease { id, ttl, remaining_ttl: remaining };
            prop_assert_eq!(encode(LeaseId(id), ttl, remaining), row.encode_to_vec());
            prop_assert_eq!(decode(&row.encode_to_vec()), Some((LeaseId(id), ttl, remaining)));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some((id, ttl, remaining)) = decode(&bytes) {
                prop_assert_eq!(decode(&encode(id, ttl, remaining)), Some((id, ttl, remaining)));
            }
        }
    }
}
