//! etcd's JSON of a member: in a configuration change's context and in the table of members.

use serde::{Deserialize, Serialize};

use super::Member;
use crate::types::NodeId;

/// Field names and their order are etcd's, and so is what is left out when it is empty.
#[derive(Serialize, Deserialize)]
struct MemberJson {
    #[serde(default)]
    id: u64,
    /// An empty list is `null`, and always written.
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "is_false")]
    learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Option::is_none")]
    client_urls: Option<Vec<String>>,
    #[serde(rename = "isPromote", default, skip_serializing_if = "is_false")]
    promote: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// None for an empty list.
pub(super) fn filled(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// A member's JSON; `promote` marks the context of a learner's promotion.
pub(super) fn context(member: &Member, promote: bool) -> String {
    encode(&MemberJson {
        id: member.id.0,
        peer_urls: filled(&member.peer_urls),
        learner: member.learner,
        name: member.name.clone(),
        client_urls: filled(&member.client_urls),
        promote,
    })
}

/// A member from the table of members.
pub(super) fn member(bytes: &[u8]) -> Result<Member, serde_json::Error> {
    parse_context(bytes).map(|(member, _)| member)
}

/// A member from a change's context, and whether it is a promotion.
pub(super) fn parse_context(bytes: &[u8]) -> Result<(Member, bool), serde_json::Error> {
    let json: MemberJson = serde_json::from_slice(bytes)?;
    let member = Member {
        id: NodeId(json.id),
        name: json.name,
        peer_urls: json.peer_urls.unwrap_or_default(),
        client_urls: json.client_urls.unwrap_or_default(),
        learner: json.learner,
    };
    Ok((member, json.promote))
}

/// JSON as Go writes it: it escapes what could end a script in HTML. Such characters stand in strings alone,
/// so they may be replaced anywhere.
pub(super) fn encode(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("strings, numbers and maps by string always encode");
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
