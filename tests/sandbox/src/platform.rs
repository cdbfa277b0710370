//! The simulated platforms.

use std::str::FromStr;

/// The platform that a function runs on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Platform {
    /// AWS Lambda: the Runtime API, absolute deadlines, extensions, SnapStart.
    #[default]
    Lambda,
    /// Tencent Cloud Functions: the custom runtime, limits as durations, the first response wins.
    Scf,
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "lambda" => Ok(Self::Lambda),
            "scf" => Ok(Self::Scf),
            other => Err(format!("unknown platform `{other}`: lambda or scf")),
        }
    }
}
