//! The function and its events.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use serde_json::Value;

/// A program that uses the Lambda Runtime API.
#[derive(Clone)]
pub struct Function {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// Omits the values of variables, which contain passwords.
impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Function")
            .field("program", &self.program)
            .field("args", &self.args)
            .field("env", &variables)
            .finish()
    }
}

impl Function {
    /// A program, given by its path or by its name in `PATH`, as in a shell.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Returns the path of the program.
    ///
    /// # Errors
    /// If there is no such file, or it is not executable.
    pub fn locate(&self) -> io::Result<PathBuf> {
        let named = &self.program;
        let search = std::env::var_os("PATH").unwrap_or_default();
        let candidates: Vec<PathBuf> = if named.components().count() > 1 {
            vec![std::path::absolute(named)?]
        } else {
            std::env::split_paths(&search)
                .map(|folder| folder.join(named))
                .collect()
        };
        if let Some(found) = candidates.iter().find(|path| is_executable(path)) {
            return Ok(found.clone());
        }
        let (kind, problem) = match candidates.iter().find(|path| path.exists()) {
            Some(path) if path.is_dir() => (io::ErrorKind::IsADirectory, "is a folder"),
            Some(_) => (io::ErrorKind::PermissionDenied, "is not executable"),
            None => (io::ErrorKind::NotFound, "does not exist"),
        };
        let hint = if candidates.len() == 1 {
            ""
        } else {
            " in any folder of PATH (a path needs a `/`)"
        };
        Err(io::Error::new(
            kind,
            format!("`{}` {problem}{hint}", named.display()),
        ))
    }

    pub(crate) fn name(&self) -> String {
        self.program
            .file_name()
            .unwrap_or(OsStr::new("function"))
            .to_string_lossy()
            .into_owned()
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The event of one invocation.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub(crate) payload: Bytes,
    pub(crate) tenant: Option<String>,
    pub(crate) client_context: Option<String>,
    pub(crate) cognito_identity: Option<String>,
}

impl Event {
    /// An event with these bytes as its payload.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            ..Self::default()
        }
    }

    /// The tenant, for functions with tenant isolation.
    #[must_use]
    pub fn tenant(mut self, id: impl Into<String>) -> Self {
        self.tenant = Some(id.into());
        self
    }

    /// The client context of the mobile SDKs.
    #[must_use]
    pub fn client_context(mut self, context: &Value) -> Self {
        self.client_context = Some(context.to_string());
        self
    }

    /// The Cognito identity of the mobile SDKs.
    #[must_use]
    pub fn cognito_identity(mut self, identity: &str, pool: &str) -> Self {
        let json =
            serde_json::json!({"cognitoIdentityId": identity, "cognitoIdentityPoolId": pool});
        self.cognito_identity = Some(json.to_string());
        self
    }
}

impl From<Value> for Event {
    fn from(value: Value) -> Self {
        Self::new(value.to_string())
    }
}
