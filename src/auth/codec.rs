//! etcd's rows of users and roles: `authpb.User` (name 1, password 2, roles 3, options 4 with no_password 1) and
//! `authpb.Role` (name 1, permissions 2 with type 1, key 2, range_end 3). What is empty or zero is left out.

use bytes::Bytes;

use super::action::{Access, Permission, Role, User};
use crate::lease::codec::{put_varint, take_varint};

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A fixed number, which none of these rows has.
    Fixed,
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(taken)
}

fn take_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = take_varint(bytes)?;
    let field = match tag & 7 {
        0 => Field::Number(take_varint(bytes)?),
        1 => take(bytes, 8).map(|_| Field::Fixed)?,
        2 => {
            let len = usize::try_from(take_varint(bytes)?).ok()?;
            Field::Bytes(take(bytes, len)?)
        }
        5 => take(bytes, 4).map(|_| Field::Fixed)?,
        _ => return None,
    };
    Some((tag >> 3, field))
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_some(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_bytes(out, field, bytes);
    }
}

/// The row of a user.
pub(super) fn encode_user(name: &str, user: &User) -> Vec<u8> {
    let mut out = Vec::new();
    put_some(&mut out, 1, name.as_bytes());
    put_some(&mut out, 2, &user.password);
    for role in &user.roles {
        put_bytes(&mut out, 3, role.as_bytes());
    }
    match user.no_password {
        None => {}
        Some(false) => put_bytes(&mut out, 4, &[]),
        Some(true) => put_bytes(&mut out, 4, &[1 << 3, 1]),
    }
    out
}

/// A user's row; None if it is none. Fields of other numbers are skipped.
pub(super) fn decode_user(mut bytes: &[u8]) -> Option<(String, User)> {
    let mut name = String::new();
    let mut user = User { password: Bytes::new(), roles: Vec::new(), no_password: None };
    while !bytes.is_empty() {
        match take_field(&mut bytes)? {
            (1, Field::Bytes(bytes)) => name = String::from_utf8(bytes.to_vec()).ok()?,
            (2, Field::Bytes(bytes)) => user.password = Bytes::copy_from_slice(bytes),
            (3, Field::Bytes(bytes)) => user.roles.push(String::from_utf8(bytes.to_vec()).ok()?),
            (4, Field::Bytes(mut bytes)) => {
                let mut no_password = false;
                while !bytes.is_empty() {
                    if let (1, Field::Number(number)) = take_field(&mut bytes)? {
                        no_password = number != 0;
                    }
                }
                user.no_password = Some(no_password);
            }
            _ => {}
        }
    }
    Some((name, user))
}

/// The row of a role.
pub(super) fn encode_role(name: &str, role: &Role) -> Vec<u8> {
    let mut out = Vec::new();
    put_some(&mut out, 1, name.as_bytes());
    for permission in &role.permissions {
        let mut part = Vec::new();
        if permission.access.number() != 0 {
            part.push(1 << 3);
            // Negative numbers take ten bytes, as in any protobuf.
            put_varint(&mut part, i64::from(permission.access.number()) as u64);
        }
        put_some(&mut part, 2, &permission.key);
        put_some(&mut part, 3, &permission.range_end);
        put_bytes(&mut out, 2, &part);
    }
    out
}

/// A role's row; None if it is none. Fields of other numbers are skipped.
pub(super) fn decode_role(mut bytes: &[u8]) -> Option<(String, Role)> {
    let mut name = String::new();
    let mut role = Role::default();
    while !bytes.is_empty() {
        match take_field(&mut bytes)? {
            (1, Field::Bytes(bytes)) => name = String::from_utf8(bytes.to_vec()).ok()?,
            (2, Field::Bytes(bytes)) => role.permissions.push(decode_permission(bytes)?),
            _ => {}
        }
    }
    Some((name, role))
}

fn decode_permission(mut bytes: &[u8]) -> Option<Permission> {
    let mut permission = Permission { access: Access::Read, key: Bytes::new(), range_end: Bytes::new() };
    while !bytes.is_empty() {
        match take_field(&mut bytes)? {
            (1, Field::Number(number)) => permission.access = Access::from_number(number as i32),
            (2, Field::Bytes(bytes)) => permission.key = Bytes::copy_from_slice(bytes),
            (3, Field::Bytes(bytes)) => permission.range_end = Bytes::copy_from_slice(bytes),
            _ => {}
        }
    }
    Some(permission)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::wire::authpb;

    proptest! {
        #[test]
        fn a_user_is_the_protobuf(
            name in "[a-zä]{0,8}", password: Vec<u8>, roles in prop::collection::vec("[a-z]{0,4}", 0..4),
            no_password: Option<bool>,
        ) {
            let options = no_password.map(|no_password| authpb::UserAddOptions { no_password });
            let row = authpb::User {
                name: name.clone().into_bytes().into(), password: password.clone().into(), roles: roles.clone(), options,
            }.encode_to_vec();
            let user = User { password: password.into(), roles, no_password };
            prop_assert_eq!(&encode_user(&name, &user), &row);
            prop_assert_eq!(decode_user(&row), Some((name, user)));
        }

        #[test]
        fn a_role_is_the_protobuf(
            name in "[a-z]{0,8}", permissions in prop::collection::vec((-3i32..5, any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
        ) {
            let wire = permissions.iter().map(|(number, key, end)| authpb::Permission {
                perm_type: *number, key: key.clone().into(), range_end: end.clone().into(),
            }).collect();
            let row = authpb::Role { name: name.clone().into_bytes().into(), key_permission: wire }.encode_to_vec();
            let permissions = permissions.into_iter().map(|(number, key, end)| Permission {
                access: Access::from_number(number), key: key.into(), range_end: end.into(),
            }).collect();
            let role = Role { permissions };
            prop_assert_eq!(&encode_role(&name, &role), &row);
            prop_assert_eq!(decode_role(&row), Some((name, role)));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some((name, user)) = decode_user(&bytes) {
                prop_assert_eq!(decode_user(&encode_user(&name, &user)), Some((name, user)));
            }
            if let Some((name, role)) = decode_role(&bytes) {
                prop_assert_eq!(decode_role(&encode_role(&name, &role)), Some((name, role)));
            }
        }
    }
}
