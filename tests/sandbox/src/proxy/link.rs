//! One proxied connection, from the accept to its end.

use std::sync::Arc;

use tokio::{net::TcpStream, sync::watch, time::timeout};

use super::{
    Flow, Rules, Shared, Welcome,
    pump::{Over, Pump},
    timer::Timer,
};

pub(super) async fn run(client: TcpStream, rules: Rules, shared: Arc<Shared>) {
    let flow = match rules.welcome {
        Welcome::Pass | Welcome::Refuse => Flow::Pass,
        Welcome::Silence => Flow::Dark { forgotten: false },
        Welcome::Cut(bytes) => Flow::Cut(bytes),
    };
    let (number, flow) = shared.enter(flow);
    // Also when this task is aborted.
    let _leave = Leave {
        shared: &shared,
        number,
    };
    serve(client, rules, flow, &shared, number).await;
}

struct Leave<'a> {
    shared: &'a Shared,
    number: usize,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.number);
    }
}

async fn serve(
    client: TcpStream,
    rules: Rules,
    mut flow: watch::Receiver<Flow>,
    shared: &Shared,
    number: usize,
) {
    // On loopback the handshake is immediate. On a network SYN, SYN-ACK and ACK take one and a half round
    // trips until the database sees the connection.
    if let Ok(timer) = Timer::new() {
        timer
            .until(std::time::Instant::now() + rules.rtt.mul_f64(1.5))
            .await;
    }
    // A connection that is opened while the network is dark reaches the database only when it is healed.
    if flow
        .wait_for(|flow| !matches!(flow, Flow::Dark { .. }))
        .await
        .is_err()
    {
        return;
    }
    let connect = TcpStream::connect(&shared.target);
    let Ok(Ok(server)) = timeout(shared.limits.proxy_connect, connect).await else {
        return reset(&client, None);
    };
    let port = server.local_addr().ok().map(|addr| addr.port());
    shared.update(number, |record| record.port = port);
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    carry(client, server, rules, flow, shared, number).await;
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    rules: Rules,
    mut flow: watch::Receiver<Flow>,
    shared: &Shared,
    number: usize,
) {
    let delay = rules.rtt / 2;
    let over = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = Pump {
            from: from_client,
            to: to_server,
            delay,
            flow: flow.clone(),
            counts: false,
        };
        let down = Pump {
            from: from_server,
            to: to_client,
            delay,
            flow: flow.clone(),
            counts: true,
        };
        let sent = |bytes| shared.update(number, |record| record.sent += bytes as u64);
        let received = |bytes| shared.update(number, |record| record.received += bytes as u64);
        let both = async {
            let let_go = || shared.let_go(number);
            let (up, down) = (up.run(sent, let_go), down.run(received, || {}));
            tokio::pin!(up, down);
            // A broken direction ends the other one, a closed one does not.
            tokio::select! {
                over = &mut up => if over == Over::Closed { down.await } else { over },
                over = &mut down => if over == Over::Closed { up.await } else { over },
            }
        };
        tokio::select! {
            over = both => over,
            _ = flow.wait_for(|flow| *flow == Flow::Reset) => Over::Broken,
        }
    };
    if over == Over::Broken {
        reset(&client, Some(&server));
    }
}

/// Sends a RST to both sides instead of an orderly close.
fn reset(client: &TcpStream, server: Option<&TcpStream>) {
    for stream in [Some(client), server].into_iter().flatten() {
        // If it cannot be set, the connection ends with a FIN.
        let _ = stream.set_zero_linger();
    }
}
