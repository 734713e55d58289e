//! Compiles `proto/` without an installed protoc: protox parses the files, tonic-build generates the code.

#![allow(clippy::disallowed_methods, reason = "a build writes files; no member runs this")]

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    const FILES: [&str; 8] = [
        "kv.proto",
        "auth.proto",
        "rpc.proto",
        "lock.proto",
        "election.proto",
        "raft.proto",
        "storage.proto",
        "internal.proto",
    ];
    let descriptors = protox::compile(FILES, ["proto"])?;
    let path = PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin");
    fs::write(&path, descriptors.encode_to_vec())?;
    tonic_build::configure()
        .bytes(["."])
        // Stored bytes go into responses as they are; see `wire::RawKeyValue`.
        .extern_path(".mvccpb.KeyValue", "crate::wire::RawKeyValue")
        .file_descriptor_set_path(&path)
        // It would name files that it does not find, and so have everything built anew each time.
        .emit_rerun_if_changed(false)
        .skip_protoc_run()
        .compile_protos(&FILES, &["proto"])?;
    for services in ["etcdserverpb.rs", "v3lockpb.rs", "v3electionpb.rs"] {
        use_own_codec(&path.with_file_name(services))?;
    }
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}

/// Has the services use `wire::codec`, which tonic's generator can be told but madsim's wrapper of it can't.
fn use_own_codec(generated: &Path) -> Result<(), Box<dyn Error>> {
    let code = fs::read_to_string(generated)?;
    let ours = code.replace("tonic_prost::ProstCodec::default()", "crate::wire::codec::Codec::default()");
    if ours == code {
        return Err("the generated services name no codec".into());
    }
    Ok(fs::write(generated, ours)?)
}
