# Runs SecantusDB with one user, and with passwords from then on.
#
# usage: python -c "$(cat secantusdb.py)" PORT FOLDER USER PASSWORD [CERTIFICATE KEY]
import signal
import sys

import pymongo
from secantus import SecantusDBServer

port, folder, user, password, *tls = sys.argv[1:]
signals = [signal.SIGTERM, signal.SIGINT]
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
server = SecantusDBServer(
    port=int(port),
    storage_path=folder,
    cache_size="64M",
    tls_cert_file=tls[0] if tls else None,
    tls_key_file=tls[1] if tls else None,
)
server.start()
verify = {"tls": True, "tlsCAFile": tls[0]} if tls else {}
with pymongo.MongoClient("127.0.0.1", int(port), directConnection=True, **verify) as client:
    client.admin.command("createUser", user, pwd=password, roles=["root"])
server.require_auth = True
print("READY", flush=True)
signal.sigwait(signals)
server.stop()
