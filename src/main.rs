//! The one binary: server, `ctl` and `bench`, by its first argument or by the name it was called with.

#[cfg(not(madsim))]
fn main() {
    use kontiki::cli::{self, Role};

    let args: Vec<String> = std::env::args().collect();
    let (role, line) = cli::role(&args);
    std::process::exit(match role {
        Role::Ctl => cli::ctl::main(line),
        Role::Bench => cli::bench::main(line),
        Role::Utl => missing("utl"),
        Role::Server => missing("the server"),
    });
}

#[cfg(not(madsim))]
fn missing(what: &str) -> i32 {
    eprintln!("{what} is not part of this build yet");
    1
}

/// Under the simulator there is no process to be: tests call the library.
#[cfg(madsim)]
fn main() {}
