//! A stand-in for AWS's services: moto's server, from PyPI.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::OnceLock;

use crate::guarded::{EndWith, Server, Workplace};
use crate::ports::free_port;
use crate::programs::Programs;
use crate::turn;
use crate::wait::on_any_free_port;

const PROGRAMS: Programs = Programs {
    names: &["moto_server"],
    // In the workspace's target directory, where `tests/run` installs it.
    folders: &[concat!(env!("CARGO_MANIFEST_DIR"), "/../target/moto/bin")],
    install: "`python3 -m venv target/moto && target/moto/bin/pip install 'moto[server]==5.2.5'`",
};

/// The stand-in of this test process, started on first use.
///
/// # Panics
/// When moto is not installed, with the command that installs it, or does not start, with its log.
pub fn aws() -> &'static Aws {
    static SHARED: OnceLock<Aws> = OnceLock::new();
    turn::beside();
    SHARED.get_or_init(|| on_any_free_port(free_port, Aws::start_on))
}

/// AWS's services on a loopback port, and a user with access to them.
///
/// Every request of that user is checked as on AWS: signature and permissions.
#[derive(Debug)]
pub struct Aws {
    _server: Server,
    port: u16,
    key_id: String,
    key: String,
}

impl Aws {
    /// The region of all services.
    pub const REGION: &str = "eu-west-1";

    /// The services' URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The user's access key: id and secret.
    #[must_use]
    pub fn access_key(&self) -> (&str, &str) {
        (&self.key_id, &self.key)
    }

    fn start_on(port: u16) -> Result<Self, String> {
        let [moto] = PROGRAMS.find();
        let workplace = Workplace::create_for_ourselves("aws");
        let is_ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let arguments = ["-H", "127.0.0.1", "-p", &port.to_string()];
        let server = workplace.serve(EndWith::Kill, Path::new(&moto), arguments, is_ready)?;

        let iam = |form: &str| {
            let form = format!("{form}&UserName=function&Version=2010-05-08");
            post(port, "/", "iam", &form)
        };
        // Authorization is checked from the fourth request on.
        post(port, "/moto-api/reset-auth", "moto", "3");
        iam("Action=CreateUser");
        let key = iam("Action=CreateAccessKey");
        let policy = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C\
                      %22Action%22%3A%22secretsmanager%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
        iam(&format!(
            "Action=PutUserPolicy&PolicyName=secrets&PolicyDocument={policy}"
        ));
        Ok(Self {
            _server: server,
            port,
            key_id: element(&key, "AccessKeyId"),
            key: element(&key, "SecretAccessKey"),
        })
    }
}

/// Posts a form to a service, with an invalid signature.
fn post(port: u16, path: &str, service: &str, form: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("moto listens");
    let region = Aws::REGION;
    // moto's own interface does not accept forms.
    let kind = match service {
        "moto" => "text/plain",
        _ => "application/x-www-form-urlencoded",
    };
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {service}.amazonaws.com\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=nobody/20260101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=none\r\n\
         Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    stream.write_all(request.as_bytes()).expect("moto reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("moto answers");
    assert!(answer.contains(" 200 "), "moto refuses {form}: {answer}");
    answer
}

/// The content of the first element with this name.
fn element(xml: &str, name: &str) -> String {
    let inside = xml
        .split_once(&format!("<{name}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    let (text, _) = inside.unwrap_or_else(|| panic!("no <{name}> in {xml}"));
    text.to_owned()
}
