//! The one binary: server, `ctl` and `bench`, by its first argument or by the name it was called with.

#[cfg(not(madsim))]
fn main() {
    let mut args = std::env::args();
    let program = args.next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default().to_string();
    let line: Vec<String> = args.collect();
    std::process::exit(match (name.as_str(), line.first().map(String::as_str)) {
        ("etcdctl", _) => kontiki::cli::ctl::main(&line),
        ("etcd", _) => server(&line),
        (_, Some("ctl")) => kontiki::cli::ctl::main(&line[1..]),
        _ => server(&line),
    });
}

/// The server, with etcd's flags.
#[cfg(not(madsim))]
fn server(_line: &[String]) -> i32 {
    eprintln!("the server is not part of this build");
    1
}

/// Under the simulator there is no process to be: tests call the library.
#[cfg(madsim)]
fn main() {}
