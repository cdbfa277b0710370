/* Forces TCP_NODELAY on a function's connections to its database, for the contender that shows what sqlx 0.9.0 would cost
 * if it set the option itself. Loaded with LD_PRELOAD, for the benchmark alone. The connection to the platform stays as
 * the runtime makes it: nothing but the database's side may differ from the contender without this library. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int is_platform(const struct sockaddr *address) {
    const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
    const char *port = api ? strrchr(api, ':') : NULL;
    return port && ntohs(((const struct sockaddr_in *)address)->sin_port) == atoi(port + 1);
}

int connect(int fd, const struct sockaddr *address, socklen_t length) {
    int (*next)(int, const struct sockaddr *, socklen_t) =
        (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "connect");
    if (address->sa_family == AF_INET && !is_platform(address)) {
        int on = 1;
        int before = errno;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        errno = before;
    }
    return next(fd, address, length);
}
