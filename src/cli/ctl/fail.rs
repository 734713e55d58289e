//! How a command ends: etcdctl's exit codes, and the sentence that goes with them.

/// etcdctl's exit codes that these commands use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// The server refused, or an endpoint is unhealthy.
    Error = 1,
    /// No connection, or authentication failed.
    BadConnection = 2,
    /// What came on standard input makes no sense.
    BadInput = 3,
    /// The feature or output format does not exist here.
    BadFeature = 4,
    /// The server ended a stream that should have gone on.
    Interrupted = 5,
    /// A local file or pipe failed.
    Io = 6,
    /// Arguments or flags are wrong.
    BadArgs = 128,
    /// Standard output was closed by its reader; what a shell shows for SIGPIPE.
    BrokenPipe = 141,
}

/// Why a command failed. Without a text, what there was to say has been printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// Printed on standard error after `Error: `.
    pub text: Option<String>,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: Some(text.into()) }
    }

    /// Wrong arguments: exit code 128.
    pub fn args(text: impl Into<String>) -> Self {
        Self::new(Exit::BadArgs, text)
    }

    /// A failure whose sentence is already on standard error.
    pub fn silent(exit: Exit) -> Self {
        Self { exit, text: None }
    }
}

/// What commands return.
pub type Outcome = Result<(), Failure>;
