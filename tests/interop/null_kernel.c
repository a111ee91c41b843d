/*
 * A null kernel for IKE daemons, by LD_PRELOAD: it takes every SA and policy and moves no packet.
 *
 * Every NETLINK_XFRM and PF_KEYv2 socket that a daemon opens becomes one end of a socket pair, and a thread
 * answers at the other end as a kernel would: an SPI is allocated, counters are zero, all else is acknowledged.
 * With it, daemons run unmodified where the kernel has no ESP, and what they install can be compared with what
 * their peer installed.
 *
 *   NULL_KERNEL_LOG      file that gets one JSON line for every SA and policy (with keys: for tests only)
 *   NULL_KERNEL_CONTROL  path of a datagram socket that takes "soft SPI" and "hard SPI" (hexadecimal): that lifetime
 *                        of the SA is over, which a kernel tells the daemon; it rekeys or deletes it. "used SPI":
 *                        from now on that SA was used just now, whenever the daemon asks. (PF_KEY only)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <linux/ipsec.h>
#include <linux/netlink.h>
#include <linux/pfkeyv2.h>
#include <linux/xfrm.h>

#define MAX_FD 65536
#define MAX_MESSAGE 65536
#define MIN_SPI 256 /* RFC 4303 section 2.1: 1 to 255 are reserved */
#define ANSWER_MS 2000

enum kind { FOREIGN, NETLINK, PFKEY };

static unsigned char kind_of[MAX_FD];
static uint32_t used_spi; /* in network byte order */
static int pfkey_server = -1; /* our end of the latest PF_KEY socket pair, for expiry messages */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

struct server {
	int fd;
	enum kind kind;
};

/* The function of that name which we hide. */
#define REAL(name)                                                                                               \
	({                                                                                                       \
		static __typeof__(&name) real_;                                                                  \
		if (!real_)                                                                                      \
			real_ = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                                      \
		real_;                                                                                           \
	})

static enum kind kind(int fd)
{
	return fd >= 0 && fd < MAX_FD ? kind_of[fd] : FOREIGN;
}

static uint32_t random_spi(uint32_t min, uint32_t max)
{
	uint32_t value = 0;

	if (getrandom(&value, sizeof(value), 0) != sizeof(value))
		abort();
	if (min < MIN_SPI)
		min = MIN_SPI;
	return max > min ? min + value % (max - min) : min;
}

/* --- what is logged --------------------------------------------------------------------------------------- */

static const char *text_of(const void *address, int family, char *text)
{
	return inet_ntop(family == AF_INET6 ? AF_INET6 : AF_INET, address, text, INET6_ADDRSTRLEN) ? text : "?";
}

static void log_algorithm(FILE *log, const char *field, const char *name, const void *key, unsigned int key_bits)
{
	const unsigned char *byte = key;

	fprintf(log, ",\"%s\":{\"name\":\"%s\",\"key\":\"", field, name);
	for (unsigned int i = 0; i < key_bits / 8; i++)
		fprintf(log, "%02x", byte[i]);
	fprintf(log, "\"}");
}

static void log_selector(FILE *log, const struct xfrm_selector *selector)
{
	char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];

	fprintf(log, ",\"selector\":{\"source\":\"%s/%u\",\"destination\":\"%s/%u\",\"protocol\":%u}",
		text_of(&selector->saddr, selector->family, source), selector->prefixlen_s,
		text_of(&selector->daddr, selector->family, destination), selector->prefixlen_d, selector->proto);
}

static void log_attribute(FILE *log, int type, const void *data)
{
	const struct xfrm_algo *plain = data;
	const struct xfrm_algo_auth *truncated = data;
	const struct xfrm_algo_aead *aead = data;
	const struct xfrm_encap_tmpl *encap = data;
	const struct xfrm_replay_state_esn *replay = data;

	switch (type) {
	case XFRMA_ALG_CRYPT:
		log_algorithm(log, "encryption", plain->alg_name, plain->alg_key, plain->alg_key_len);
		break;
	case XFRMA_ALG_AEAD:
		log_algorithm(log, "encryption", aead->alg_name, aead->alg_key, aead->alg_key_len);
		fprintf(log, ",\"icv_bits\":%u", aead->alg_icv_len);
		break;
	case XFRMA_ALG_AUTH_TRUNC:
		log_algorithm(log, "integrity", truncated->alg_name, truncated->alg_key, truncated->alg_key_len);
		fprintf(log, ",\"icv_bits\":%u", truncated->alg_trunc_len);
		break;
	case XFRMA_ENCAP:
		fprintf(log, ",\"encapsulation\":[%u,%u]", ntohs(encap->encap_sport), ntohs(encap->encap_dport));
		break;
	case XFRMA_REPLAY_ESN_VAL:
		fprintf(log, ",\"replay_window\":%u", replay->replay_window);
		break;
	default:
		break;
	}
}

static void log_attributes(FILE *log, const struct nlmsghdr *message, size_t fixed)
{
	const char *at = (const char *)message + NLMSG_LENGTH(NLMSG_ALIGN(fixed));
	const char *end = (const char *)message + message->nlmsg_len;

	while (at + NLA_HDRLEN <= end) {
		const struct nlattr *attribute = (const void *)at;

		if (attribute->nla_len < NLA_HDRLEN || at + attribute->nla_len > end)
			break;
		/* XFRMA_ALG_AUTH repeats XFRMA_ALG_AUTH_TRUNC, for kernels that do not know the latter. */
		log_attribute(log, attribute->nla_type, at + NLA_HDRLEN);
		at += NLA_ALIGN(attribute->nla_len);
	}
}

static void log_xfrm_sa(FILE *log, const struct nlmsghdr *message)
{
	static const char *const modes[] = { "transport", "tunnel" };
	const struct xfrm_usersa_info *sa = NLMSG_DATA(message);
	char source[INET6_ADDRSTRLEN], destination[INET6_ADDRSTRLEN];

	fprintf(log, "{\"op\":\"install\",\"spi\":\"%08x\",\"protocol\":%u,\"source\":\"%s\",\"destination\":\"%s\"",
		ntohl(sa->id.spi), sa->id.proto, text_of(&sa->saddr, sa->family, source),
		text_of(&sa->id.daddr, sa->family, destination));
	fprintf(log, ",\"mode\":\"%s\",\"esn\":%s", sa->mode <= XFRM_MODE_TUNNEL ? modes[sa->mode] : "other",
		sa->flags & XFRM_STATE_ESN ? "true" : "false");
	log_selector(log, &sa->sel);
	log_attributes(log, message, sizeof(*sa));
	fprintf(log, "}\n");
}

static void log_xfrm(FILE *log, const struct nlmsghdr *message)
{
	const struct xfrm_usersa_id *sa = NLMSG_DATA(message);
	const struct xfrm_userpolicy_info *policy = NLMSG_DATA(message);

	switch (message->nlmsg_type) {
	case XFRM_MSG_NEWSA:
	case XFRM_MSG_UPDSA:
		log_xfrm_sa(log, message);
		break;
	case XFRM_MSG_DELSA:
		fprintf(log, "{\"op\":\"remove\",\"spi\":\"%08x\",\"protocol\":%u}\n", ntohl(sa->spi), sa->proto);
		break;
	case XFRM_MSG_NEWPOLICY:
	case XFRM_MSG_UPDPOLICY:
		fprintf(log, "{\"op\":\"policy\",\"direction\":%u", policy->dir);
		log_selector(log, &policy->sel);
		fprintf(log, "}\n");
		break;
	default:
		break;
	}
}

/* The extension of a PF_KEY message with this type, or NULL (RFC 2367 section 2.3). */
static const void *extension(const struct sadb_msg *message, size_t length, int type)
{
	size_t at = sizeof(*message);

	while (at + sizeof(struct sadb_ext) <= length) {
		const struct sadb_ext *one = (const void *)((const char *)message + at);

		if (!one->sadb_ext_len || at + one->sadb_ext_len * 8 > length)
			return NULL;
		if (one->sadb_ext_type == type)
			return one;
		at += one->sadb_ext_len * 8;
	}
	return NULL;
}

static void log_pfkey_address(FILE *log, const char *field, const struct sadb_address *address)
{
	const struct sockaddr_in *v4 = (const void *)(address + 1);
	const struct sockaddr_in6 *v6 = (const void *)(address + 1);
	const void *raw;
	char text[INET6_ADDRSTRLEN];

	if (!address)
		return;
	raw = v4->sin_family == AF_INET6 ? (const void *)&v6->sin6_addr : (const void *)&v4->sin_addr;
	fprintf(log, ",\"%s\":\"%s\"", field, text_of(raw, v4->sin_family, text));
}

static void log_pfkey_key(FILE *log, const char *field, int algorithm, const struct sadb_key *key)
{
	char name[16];

	if (!key)
		return;
	snprintf(name, sizeof(name), "pfkey %d", algorithm);
	log_algorithm(log, field, name, key + 1, key->sadb_key_bits);
}

static void log_pfkey(FILE *log, const struct sadb_msg *message, size_t length)
{
	const struct sadb_sa *sa = extension(message, length, SADB_EXT_SA);
	const struct sadb_x_sa2 *sa2 = extension(message, length, SADB_X_EXT_SA2);
	int protocol = message->sadb_msg_satype == SADB_SATYPE_AH ? IPPROTO_AH : IPPROTO_ESP;

	switch (message->sadb_msg_type) {
	case SADB_ADD:
	case SADB_UPDATE:
		if (!sa)
			return;
		fprintf(log, "{\"op\":\"install\",\"spi\":\"%08x\",\"protocol\":%d,\"mode\":\"%s\",\"esn\":%s",
			ntohl(sa->sadb_sa_spi), protocol,
			sa2 && sa2->sadb_x_sa2_mode == IPSEC_MODE_TRANSPORT ? "transport" : "tunnel",
			sa->sadb_sa_flags & 0x400 ? "true" : "false");
		log_pfkey_address(log, "source", extension(message, length, SADB_EXT_ADDRESS_SRC));
		log_pfkey_address(log, "destination", extension(message, length, SADB_EXT_ADDRESS_DST));
		log_pfkey_key(log, "encryption", sa->sadb_sa_encrypt, extension(message, length, SADB_EXT_KEY_ENCRYPT));
		log_pfkey_key(log, "integrity", sa->sadb_sa_auth, extension(message, length, SADB_EXT_KEY_AUTH));
		fprintf(log, "}\n");
		break;
	case SADB_DELETE:
		if (sa)
			fprintf(log, "{\"op\":\"remove\",\"spi\":\"%08x\",\"protocol\":%d}\n",
				ntohl(sa->sadb_sa_spi), protocol);
		break;
	default:
		break;
	}
}

static FILE *open_log(void)
{
	const char *path = getenv("NULL_KERNEL_LOG");

	return path ? fopen(path, "ae") : NULL;
}

/* --- answers of NETLINK_XFRM ------------------------------------------------------------------------------ */

static void answer(int fd, const struct nlmsghdr *request, uint16_t type, const void *data, size_t length)
{
	char buffer[4096] = { 0 };
	struct nlmsghdr *header = (void *)buffer;

	header->nlmsg_len = NLMSG_LENGTH(length);
	header->nlmsg_type = type;
	header->nlmsg_seq = request->nlmsg_seq;
	header->nlmsg_pid = request->nlmsg_pid;
	memcpy(NLMSG_DATA(header), data, length);
	(void)!REAL(send)(fd, buffer, header->nlmsg_len, MSG_NOSIGNAL);
}

static void acknowledge(int fd, const struct nlmsghdr *request, int error)
{
	struct nlmsgerr body = { .error = error, .msg = *request };

	answer(fd, request, NLMSG_ERROR, &body, sizeof(body));
}

static void allocate_spi(int fd, const struct nlmsghdr *request)
{
	const struct xfrm_userspi_info *wanted = NLMSG_DATA(request);
	struct xfrm_usersa_info sa = wanted->info;

	sa.id.spi = htonl(random_spi(wanted->min, wanted->max));
	answer(fd, request, XFRM_MSG_NEWSA, &sa, sizeof(sa));
}

static void tell_sa(int fd, const struct nlmsghdr *request)
{
	const struct xfrm_usersa_id *asked = NLMSG_DATA(request);
	struct xfrm_usersa_info sa = { .family = asked->family };

	sa.id.daddr = asked->daddr;
	sa.id.spi = asked->spi;
	sa.id.proto = asked->proto;
	answer(fd, request, XFRM_MSG_NEWSA, &sa, sizeof(sa));
}

static void change_xfrm(int fd, const struct nlmsghdr *request)
{
	FILE *log;

	pthread_mutex_lock(&log_lock);
	log = open_log();
	if (log) {
		log_xfrm(log, request);
		fclose(log);
	}
	pthread_mutex_unlock(&log_lock);
	if (request->nlmsg_flags & NLM_F_ACK)
		acknowledge(fd, request, 0);
}

static void serve_xfrm(int fd, char *buffer, ssize_t length)
{
	unsigned int left = length;
	uint32_t zero = 0;

	for (struct nlmsghdr *request = (void *)buffer; NLMSG_OK(request, left); request = NLMSG_NEXT(request, left)) {
		int dump = (request->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;

		switch (request->nlmsg_type) {
		case XFRM_MSG_ALLOCSPI:
			allocate_spi(fd, request);
			break;
		case XFRM_MSG_GETSA:
			if (dump)
				answer(fd, request, NLMSG_DONE, &zero, sizeof(zero));
			else
				tell_sa(fd, request);
			break;
		case XFRM_MSG_GETPOLICY:
			if (dump)
				answer(fd, request, NLMSG_DONE, &zero, sizeof(zero));
			else
				acknowledge(fd, request, -ENOENT);
			break;
		case XFRM_MSG_GETSADINFO:
			answer(fd, request, XFRM_MSG_NEWSADINFO, &zero, sizeof(zero));
			break;
		case XFRM_MSG_GETSPDINFO:
			answer(fd, request, XFRM_MSG_NEWSPDINFO, &zero, sizeof(zero));
			break;
		case XFRM_MSG_GETAE:
			acknowledge(fd, request, -ESRCH);
			break;
		default:
			if (request->nlmsg_type >= XFRM_MSG_BASE)
				change_xfrm(fd, request);
		}
	}
}

/* --- answers of PF_KEY (RFC 2367) ------------------------------------------------------------------------- */

static void send_pfkey(int fd, struct sadb_msg *message, size_t length)
{
	message->sadb_msg_len = length / 8;
	(void)!REAL(send)(fd, message, length, MSG_NOSIGNAL);
}

static void serve_pfkey(int fd, char *buffer, ssize_t length)
{
	char copy[MAX_MESSAGE + 256];
	struct sadb_msg *reply = (void *)copy;
	const struct sadb_spirange *range;
	const struct sadb_sa *asked;
	struct sadb_sa sa = { .sadb_sa_len = sizeof(sa) / 8, .sadb_sa_exttype = SADB_EXT_SA };
	struct sadb_lifetime used = { .sadb_lifetime_len = sizeof(used) / 8,
				      .sadb_lifetime_exttype = SADB_EXT_LIFETIME_CURRENT };
	FILE *log;

	if (length < (ssize_t)sizeof(*reply))
		return;
	memcpy(copy, buffer, length);
	reply->sadb_msg_errno = 0;
	switch (reply->sadb_msg_type) {
	case SADB_GETSPI:
		range = extension(reply, length, SADB_EXT_SPIRANGE);
		sa.sadb_sa_spi = htonl(range ? random_spi(range->sadb_spirange_min, range->sadb_spirange_max) :
					       random_spi(MIN_SPI, UINT32_MAX));
		memcpy(reply + 1, &sa, sizeof(sa));
		length = sizeof(*reply) + sizeof(sa);
		break;
	case SADB_GET:
		asked = extension(reply, length, SADB_EXT_SA);
		if (asked && used_spi && asked->sadb_sa_spi == used_spi)
			used.sadb_lifetime_usetime = time(NULL);
		memcpy(copy + length, &used, sizeof(used));
		length += sizeof(used);
		break;
	case SADB_REGISTER:
		length = sizeof(*reply);
		break;
	default:
		pthread_mutex_lock(&log_lock);
		log = open_log();
		if (log) {
			log_pfkey(log, reply, length);
			fclose(log);
		}
		pthread_mutex_unlock(&log_lock);
	}
	send_pfkey(fd, reply, length);
}

/*
 * Say that a lifetime of an SA is over: SADB_EXT_LIFETIME_SOFT or _HARD (RFC 2367 section 3.1.8). A kernel removes
 * the SA at the end of the hard one.
 */
static void expire(uint32_t spi, uint16_t lifetime)
{
	struct {
		struct sadb_msg message;
		struct sadb_sa sa;
		struct sadb_lifetime lifetime;
	} note = { 0 };
	FILE *log;

	if (lifetime == SADB_EXT_LIFETIME_HARD) {
		pthread_mutex_lock(&log_lock);
		log = open_log();
		if (log) {
			fprintf(log, "{\"op\":\"remove\",\"spi\":\"%08x\",\"protocol\":%d}\n", spi, IPPROTO_ESP);
			fclose(log);
		}
		pthread_mutex_unlock(&log_lock);
	}
	note.message.sadb_msg_version = PF_KEY_V2;
	note.message.sadb_msg_type = SADB_EXPIRE;
	note.message.sadb_msg_satype = SADB_SATYPE_ESP;
	note.sa.sadb_sa_len = sizeof(note.sa) / 8;
	note.sa.sadb_sa_exttype = SADB_EXT_SA;
	note.sa.sadb_sa_spi = htonl(spi);
	note.sa.sadb_sa_state = SADB_SASTATE_DYING;
	note.lifetime.sadb_lifetime_len = sizeof(note.lifetime) / 8;
	note.lifetime.sadb_lifetime_exttype = lifetime;
	send_pfkey(pfkey_server, &note.message, sizeof(note));
}

static void *take_commands(void *argument)
{
	int fd = (int)(intptr_t)argument;
	char line[64];
	ssize_t length;
	unsigned int spi;

	while ((length = REAL(recv)(fd, line, sizeof(line) - 1, 0)) > 0) {
		line[length] = 0;
		if (sscanf(line, "soft %x", &spi) == 1)
			expire(spi, SADB_EXT_LIFETIME_SOFT);
		else if (sscanf(line, "hard %x", &spi) == 1)
			expire(spi, SADB_EXT_LIFETIME_HARD);
		else if (sscanf(line, "used %x", &spi) == 1)
			used_spi = htonl(spi);
	}
	return NULL;
}

/* --- threads ---------------------------------------------------------------------------------------------- */

static void *serve(void *argument)
{
	struct server server = *(struct server *)argument;
	char *buffer = malloc(MAX_MESSAGE);
	ssize_t length;

	free(argument);
	while ((length = REAL(recv)(server.fd, buffer, MAX_MESSAGE, 0)) > 0 || (length < 0 && errno == EINTR)) {
		if (length < 0)
			continue;
		if (server.kind == NETLINK)
			serve_xfrm(server.fd, buffer, length);
		else
			serve_pfkey(server.fd, buffer, length);
	}
	free(buffer);
	REAL(close)(server.fd);
	return NULL;
}

/* Start a thread that takes no signal: those are the daemon's own. */
static int start(void *(*work)(void *), void *argument)
{
	sigset_t all, before;
	pthread_t thread;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, NULL, work, argument);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!error)
		pthread_detach(thread);
	return error;
}

static void open_control(void)
{
	static int opened;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv("NULL_KERNEL_CONTROL");
	int fd;

	if (opened || !path || strlen(path) >= sizeof(address.sun_path))
		return;
	opened = 1;
	strcpy(address.sun_path, path);
	fd = REAL(socket)(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || REAL(bind)(fd, (void *)&address, sizeof(address)) < 0) {
		perror(path);
		abort();
	}
	start(take_commands, (void *)(intptr_t)fd);
}

static int null_socket(enum kind kind, int type)
{
	struct server *server = malloc(sizeof(*server));
	int big = 1 << 20, pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return -1;
	if (pair[0] >= MAX_FD)
		abort();
	if (!(type & SOCK_CLOEXEC))
		fcntl(pair[0], F_SETFD, 0);
	if (type & SOCK_NONBLOCK)
		fcntl(pair[0], F_SETFL, fcntl(pair[0], F_GETFL) | O_NONBLOCK);
	REAL(setsockopt)(pair[1], SOL_SOCKET, SO_SNDBUF, &big, sizeof(big));
	kind_of[pair[0]] = kind;
	*server = (struct server){ .fd = pair[1], .kind = kind };
	if (start(serve, server))
		abort();
	if (kind == PFKEY) {
		pfkey_server = pair[1];
		open_control();
	}
	return pair[0];
}

/* --- the functions that a daemon calls -------------------------------------------------------------------- */

int socket(int domain, int type, int protocol)
{
	if (domain == AF_NETLINK && protocol == NETLINK_XFRM)
		return null_socket(NETLINK, type);
	if (domain == PF_KEY)
		return null_socket(PFKEY, type);
	return REAL(socket)(domain, type, protocol);
}

int close(int fd)
{
	if (kind(fd))
		kind_of[fd] = FOREIGN;
	return REAL(close)(fd);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	return kind(fd) ? 0 : REAL(bind)(fd, address, length);
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	return kind(fd) ? 0 : REAL(connect)(fd, address, length);
}

/* A daemon exempts its sockets from IPsec and has UDP-encapsulated ESP decapsulated: pretend where the kernel cannot. */
static int is_ipsec_option(int level, int option)
{
	return (level == IPPROTO_IP && (option == 16 || option == 17)) ||
	       (level == IPPROTO_IPV6 && (option == 34 || option == 35)) || (level == IPPROTO_UDP && option == 100);
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t length)
{
	int status;

	if (kind(fd) && level != SOL_SOCKET)
		return 0;
	status = REAL(setsockopt)(fd, level, option, value, length);
	return status < 0 && is_ipsec_option(level, option) ? 0 : status;
}

static void name_kernel(void *address, socklen_t *length, pid_t pid)
{
	struct sockaddr_nl name = { .nl_family = AF_NETLINK, .nl_pid = pid };

	if (!address || !length)
		return;
	memcpy(address, &name, *length < sizeof(name) ? *length : sizeof(name));
	*length = sizeof(name);
}

int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
	if (kind(fd) != NETLINK)
		return REAL(getsockname)(fd, address, length);
	name_kernel(address, length, getpid());
	return 0;
}

ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length)
{
	return kind(fd) ? REAL(send)(fd, data, size, flags) : REAL(sendto)(fd, data, size, flags, address, length);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	struct msghdr nameless = *message;

	if (kind(fd)) {
		nameless.msg_name = NULL;
		nameless.msg_namelen = 0;
	}
	return REAL(sendmsg)(fd, &nameless, flags);
}

ssize_t recvfrom(int fd, void *data, size_t size, int flags, struct sockaddr *address, socklen_t *length)
{
	ssize_t got;

	if (!kind(fd))
		return REAL(recvfrom)(fd, data, size, flags, address, length);
	got = REAL(recv)(fd, data, size, flags);
	name_kernel(address, length, 0);
	return got;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	void *name = message->msg_name;
	socklen_t length = message->msg_namelen;
	ssize_t got;

	if (!kind(fd))
		return REAL(recvmsg)(fd, message, flags);
	message->msg_name = NULL;
	message->msg_namelen = 0;
	got = REAL(recvmsg)(fd, message, flags);
	message->msg_name = name;
	name_kernel(name, &length, 0);
	message->msg_namelen = name ? length : 0;
	return got;
}

/*
 * A kernel answers PF_KEY within the request; our thread must be scheduled first, and the daemon that polls only
 * briefly for the answer (iked, even in another process than the one that opened the socket) would give up.
 */
int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	int type = 0, domain = 0;
	socklen_t length = sizeof(type);

	if (count == 1 && timeout_ms >= 0 && timeout_ms < ANSWER_MS && (fds->events & POLLIN) &&
	    getsockopt(fds->fd, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
	    getsockopt(fds->fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && type == SOCK_SEQPACKET &&
	    domain == AF_UNIX)
		timeout_ms = ANSWER_MS;
	return REAL(poll)(fds, count, timeout_ms);
}
