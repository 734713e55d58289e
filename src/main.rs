//! The one binary: server, `ctl` and `bench`, by its first argument or by the name it was called with.

#[cfg(not(any(madsim, fuzzing)))]
fn main() {
    use kontiki::cli::{self, Role};

    let args: Vec<String> = std::env::args().collect();
    std::process::exit(match cli::role(&args) {
        (Role::Server, rest) => cli::run_server(rest),
        (Role::Ctl, rest) => cli::ctl::main(rest),
        (Role::Bench, rest) => cli::bench::main(rest),
        (Role::Utl, _) => {
            eprintln!(
                "Error: utl is not supported yet; etcd's own etcdutl reads and writes Kontiki's backups"
            );
            1
        }
    });
}

/// Under the simulator and the fuzzer there is no process to be: they call the library.
#[cfg(any(madsim, fuzzing))]
fn main() {}
