/* floor.c: what starting a container costs when nothing but the kernel's part is done.
 *
 * usage: floor ROOTFS WORKDIR     (root; ROOTFS is an unpacked busybox image, WORKDIR is empty)
 *
 * It is an engine of one page: it reads names of measurements from standard input, carries each out once and answers with
 * the milliseconds it took, one line each. bench/run drives it between the engines' rounds, so that all share one load.
 *
 *   spawn      fork, exec of a static program, wait: one start of a command line
 *   client     the same with one HTTP round trip to this process over a unix socket
 *   namespaces a process in new mount, pid, uts, ipc, network and cgroup namespaces on an overlay, pivot_root, exec, wait
 *   mounts     and every mount, device node, masked and read-only path that Docker gives a container
 *   cgroups    and a cgroup in each hierarchy with a pids limit, entered by the child itself
 *   sandbox    and 14 capabilities, a seccomp filter of 400 instructions, no other descriptor: `run --network none`
 *   network    and a veth pair into the bridge, addresses, a default route, an element of a NAT map: `run` on the bridge
 *   none       client + sandbox in one: the floor of `run --rm --network none`
 *   bridge     client + network in one: the floor of `run --rm`
 *   exec       client + a process that joins a running container: the floor of `exec`
 *
 * Everything it makes bears the name `gfloor` and is removed at the end of its input.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { NAMESPACES = 1, MOUNTS, CGROUPS, SANDBOX, NETWORK };
#define BRIDGE "gfloor0"
#define TABLE "gfloor"
#define GROUP "gfloor"

static char rootfs[200], work[200], socket_path[260], self[260];
static char groups[16][200];            /* this container's cgroup directories */
static char hierarchies[16][160];       /* where controllers are mounted */
static int group_count, is_v2[16], bridge_index, listener, round_number;
static int gate[2];

static void die(const char *what) { fprintf(stderr, "floor: %s: %s\n", what, strerror(errno)); exit(99); }
static void check(int result, const char *what) { if (result < 0) die(what); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec / 1e6; }

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd, path);
    if (write(fd, text, strlen(text)) < 0) die(path);
    close(fd);
}

/* ---- netlink ------------------------------------------------------------------------------------------------------- */

static char buffer[8192];
static size_t used;

static struct nlmsghdr *message(int type, int flags, const void *body, size_t size)
{
    struct nlmsghdr *head = (void *)(buffer + used);
    memset(head, 0, sizeof *head);
    head->nlmsg_type = type;
    head->nlmsg_flags = NLM_F_REQUEST | flags;
    memcpy(head + 1, body, size);
    used += NLMSG_ALIGN(sizeof *head + size);
    return head;
}
static void finish(struct nlmsghdr *head) { head->nlmsg_len = buffer + used - (char *)head; }
static struct nlattr *attribute(int type, const void *data, size_t size)
{
    struct nlattr *it = (void *)(buffer + used);
    it->nla_type = type;
    it->nla_len = NLA_HDRLEN + size;
    if (size) memcpy((char *)it + NLA_HDRLEN, data, size);
    used += NLA_ALIGN(it->nla_len);
    return it;
}
static struct nlattr *nest(int type) { return attribute(type | NLA_F_NESTED, 0, 0); }
static void close_nest(struct nlattr *it) { it->nla_len = buffer + used - (char *)it; }

/* Sends what is in the buffer and reads `acknowledgements` replies. */
static void talk(int fd, int acknowledgements, const char *what)
{
    char reply[8192];
    if (send(fd, buffer, used, 0) < 0) die(what);
    used = 0;
    while (acknowledgements > 0) {
        int size = recv(fd, reply, sizeof reply, 0);
        if (size < 0) die(what);
        for (struct nlmsghdr *head = (void *)reply; NLMSG_OK(head, (unsigned)size); head = NLMSG_NEXT(head, size))
            if (head->nlmsg_type == NLMSG_ERROR) {
                errno = -((struct nlmsgerr *)NLMSG_DATA(head))->error;
                if (errno) die(what);
                acknowledgements--;
            }
    }
}
static int netlink(int protocol) { int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol); check(fd, "netlink socket"); return fd; }
static int links, firewall;      /* kept open: closing a netfilter socket waits about 10 ms */

/* A veth pair, one end on the bridge and up, the other as eth0 in the namespace of `pid`: one message. */
static void connect_veth(int pid)
{
    char name[IFNAMSIZ];
    snprintf(name, sizeof name, "gfl%d", round_number);
    struct ifinfomsg up = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP}, peer = {0};
    struct nlmsghdr *head = message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, &up, sizeof up);
    attribute(IFLA_IFNAME, name, strlen(name) + 1);
    attribute(IFLA_MASTER, &bridge_index, 4);
    struct nlattr *info = nest(IFLA_LINKINFO);
    attribute(IFLA_INFO_KIND, "veth", 5);
    struct nlattr *data = nest(IFLA_INFO_DATA), *other = nest(VETH_INFO_PEER);
    memcpy(buffer + used, &peer, sizeof peer);
    used += NLMSG_ALIGN(sizeof peer);
    attribute(IFLA_IFNAME, "eth0", 5);
    attribute(IFLA_NET_NS_PID, &pid, 4);
    close_nest(other); close_nest(data); close_nest(info);
    finish(head);
    talk(links, 1, "create a veth pair");
}

static void address(struct nlmsghdr **head, int index, const char *text, int prefix)
{
    struct ifaddrmsg it = {.ifa_family = AF_INET, .ifa_prefixlen = prefix, .ifa_index = index};
    uint32_t ip = inet_addr(text);
    *head = message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_ACK, &it, sizeof it);
    attribute(IFA_LOCAL, &ip, 4);
    attribute(IFA_ADDRESS, &ip, 4);
    finish(*head);
}

/* Inside the container: lo and eth0 up, an address, the default route, in one go. */
static void configure_eth0(void)
{
    int fd = netlink(NETLINK_ROUTE), index = if_nametoindex("eth0");
    if (!index) die("eth0");
    struct ifinfomsg lo = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP}, eth0 = lo;
    eth0.ifi_index = index;
    struct nlmsghdr *head;
    finish(message(RTM_NEWLINK, NLM_F_ACK, &lo, sizeof lo));
    finish(message(RTM_NEWLINK, NLM_F_ACK, &eth0, sizeof eth0));
    address(&head, index, "10.254.253.2", 24);
    struct rtmsg route = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST};
    uint32_t gateway = inet_addr("10.254.253.1");
    head = message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_ACK, &route, sizeof route);
    attribute(RTA_GATEWAY, &gateway, 4);
    attribute(RTA_OIF, &index, 4);
    finish(head);
    talk(fd, 4, "configure eth0");
    close(fd);
}
static void loopback_up(void)
{
    int fd = netlink(NETLINK_ROUTE);
    struct ifinfomsg lo = {.ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    finish(message(RTM_NEWLINK, NLM_F_ACK, &lo, sizeof lo));
    talk(fd, 1, "loopback up");
    close(fd);
}

/* Adds or deletes one published port in the NAT map: one transaction. */
static void nat_element(int type)
{
    struct nfgenmsg batch = {.res_id = htons(NFNL_SUBSYS_NFTABLES)}, inet = {.nfgen_family = NFPROTO_INET};
    unsigned char key[8] = {IPPROTO_TCP, 0, 0, 0, 31, 144}, value[8] = {10, 254, 253, 2, 0, 80};
    finish(message(NFNL_MSG_BATCH_BEGIN, 0, &batch, sizeof batch));
    struct nlmsghdr *head = message(NFNL_SUBSYS_NFTABLES << 8 | type, NLM_F_ACK | (type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0), &inet, sizeof inet);
    attribute(NFTA_SET_ELEM_LIST_TABLE, TABLE, sizeof TABLE);
    attribute(NFTA_SET_ELEM_LIST_SET, "ports", 6);
    struct nlattr *list = nest(NFTA_SET_ELEM_LIST_ELEMENTS), *element = nest(NFTA_LIST_ELEM), *part = nest(NFTA_SET_ELEM_KEY);
    attribute(NFTA_DATA_VALUE, key, 8);
    close_nest(part);
    if (type == NFT_MSG_NEWSETELEM) { part = nest(NFTA_SET_ELEM_DATA); attribute(NFTA_DATA_VALUE, value, 8); close_nest(part); }
    close_nest(element); close_nest(list);
    finish(head);
    finish(message(NFNL_MSG_BATCH_END, 0, &batch, sizeof batch));
    talk(firewall, 1, "change the NAT map");
}

/* ---- cgroups ------------------------------------------------------------------------------------------------------- */

static void find_hierarchies(void)
{
    FILE *mounts = fopen("/proc/self/mounts", "r");
    char point[160], kind[40], options[300];
    while (mounts && fscanf(mounts, "%*s %159s %39s %299s %*d %*d", point, kind, options) == 3)
        if ((!strcmp(kind, "cgroup") || !strcmp(kind, "cgroup2")) && group_count < 16 && access(point, W_OK) == 0) {
            is_v2[group_count] = !strcmp(kind, "cgroup2");
            strcpy(hierarchies[group_count++], point);
        }
    fclose(mounts);
}

static void copy_from_parent(const char *hierarchy, const char *group, const char *file)
{
    char path[300], text[100] = "";
    snprintf(path, sizeof path, "%s/%s", hierarchy, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (read(fd, text, sizeof text - 1) < 0) die(path);
    close(fd);
    snprintf(path, sizeof path, "%s/%s", group, file);
    put(path, text);
}

static void make_groups(int *doors)
{
    char path[300];
    for (int i = 0; i < group_count; i++) {
        snprintf(groups[i], sizeof groups[i], "%s/" GROUP "%d", hierarchies[i], round_number);
        int made = mkdir(groups[i], 0755);
        if (made && errno == EEXIST && !rmdir(groups[i])) made = mkdir(groups[i], 0755);      /* of a run that was killed */
        check(made, groups[i]);
        if (!is_v2[i]) {       /* a new cpuset of version 1 is empty and takes no process */
            copy_from_parent(hierarchies[i], groups[i], "cpuset.cpus");
            copy_from_parent(hierarchies[i], groups[i], "cpuset.mems");
        }
        snprintf(path, sizeof path, "%s/pids.max", groups[i]);
        if (access(path, W_OK) == 0) put(path, "1000");
        /* Version 2 is entered by clone3 (CLONE_INTO_CGROUP): a write to cgroup.procs waits for an RCU grace period. */
        snprintf(path, sizeof path, "%s/%s", groups[i], is_v2[i] ? "" : "tasks");
        check(doors[i] = open(path, (is_v2[i] ? O_RDONLY | O_DIRECTORY : O_WRONLY) | O_CLOEXEC), path);
    }
}

static void remove_groups(void)
{
    for (int i = 0; i < group_count; i++)
        for (int attempt = 0; rmdir(groups[i]) && attempt < 500; attempt++) usleep(200);
}

/* ---- the container ------------------------------------------------------------------------------------------------- */

static void bind_mount(const char *from, const char *to, int is_directory)
{
    if (is_directory) mkdir(to, 0755);
    else { int fd = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0644); if (fd >= 0) close(fd); }
    check(mount(from, to, 0, MS_BIND | MS_REC, 0), to);
}
static void fresh(const char *kind, const char *to, int flags, const char *options)
{
    mkdir(to, 0755);
    check(mount(kind, to, kind, flags, options), to);
}

static void all_mounts(const char *root)
{
    static const char *masked[] = {"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi"};
    static const char *read_only[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
    static const struct { const char *name; int major, minor; } devices[] = {
        {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"tty", 5, 0}, {"random", 1, 8}, {"urandom", 1, 9}};
    char path[400];
    struct stat status;
    check(chdir(root), root);
    fresh("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    fresh("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    fresh("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    fresh("sysfs", "sys", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, 0);
    fresh("tmpfs", "sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755");
    for (int i = 0; i < group_count; i++) {
        snprintf(path, sizeof path, "sys/fs/cgroup/%s", strrchr(hierarchies[i], '/') + 1);
        bind_mount(groups[i][0] ? groups[i] : hierarchies[i], path, 1);
        check(mount(0, path, 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), path);
    }
    fresh("mqueue", "dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0);
    fresh("tmpfs", "dev/shm", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");
    bind_mount("/etc/resolv.conf", "etc/resolv.conf", 0);
    bind_mount("/etc/hostname", "etc/hostname", 0);
    bind_mount("/etc/hosts", "etc/hosts", 0);
    umask(0);
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++) {
        snprintf(path, sizeof path, "dev/%s", devices[i].name);
        check(mknod(path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)), path);
    }
    umask(022);
    check(symlink("/proc/self/fd", "dev/fd"), "dev/fd");
    check(symlink("pts/ptmx", "dev/ptmx"), "dev/ptmx");
    for (unsigned i = 0; i < sizeof read_only / sizeof *read_only; i++) {
        snprintf(path, sizeof path, "proc/%s", read_only[i]);
        if (stat(path, &status)) continue;
        check(mount(path, path, 0, MS_BIND | MS_REC, 0), path);
        check(mount(0, path, 0, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, 0), path);
    }
    for (unsigned i = 0; i <= sizeof masked / sizeof *masked; i++) {
        if (i == sizeof masked / sizeof *masked) snprintf(path, sizeof path, "sys/firmware");
        else snprintf(path, sizeof path, "proc/%s", masked[i]);
        if (stat(path, &status)) continue;
        if (S_ISDIR(status.st_mode)) check(mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k"), path);
        else check(mount("/dev/null", path, 0, MS_BIND, 0), path);
    }
}

static void confine(void)
{
    static struct sock_filter program[400];
    unsigned last = sizeof program / sizeof *program - 1;
    uint64_t keep = 0xa80425fb;      /* Docker's 14 */
    for (int i = 0; i <= 40; i++) if (!(keep >> i & 1)) prctl(PR_CAPBSET_DROP, i);
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{keep, keep, 0}, {0}};
    program[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 4);
    program[1] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
    /* Numbers that nobody calls: each call walks the whole list, as the last one of a long filter would. */
    for (unsigned i = 2; i < last; i++) program[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 100000 + i, 0, 0);
    program[last] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {.len = last + 1, .filter = program};
    syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */);
    check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "seccomp");   /* needs CAP_SYS_ADMIN */
    check(syscall(SYS_capset, &head, sets), "capset");
}

static void child(int level, const int *doors, char *const *command)
{
    char options[800], root[300], byte = 0;
    if (level >= CGROUPS) {
        for (int i = 0; i < group_count; i++) if (!is_v2[i] && write(doors[i], "0", 1) != 1) die("enter a cgroup");
        check(unshare(CLONE_NEWCGROUP), "unshare the cgroup namespace");
    }
    check(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0), "make mounts private");
    snprintf(root, sizeof root, "%s/m", work);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/u,workdir=%s/w", rootfs, work, work);
    check(mount("overlay", root, "overlay", 0, options), "mount the overlay");
    if (level >= MOUNTS) { all_mounts(root); check(sethostname("gfloor", 6), "sethostname"); }
    if (level >= NETWORK) {
        if (read(gate[0], &byte, 1) != 1) die("wait for the link");
        configure_eth0();
    } else loopback_up();
    check(chdir(root), root);
    check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    check(umount2(".", MNT_DETACH), "detach the old root");
    check(chdir("/"), "/");
    if (level >= SANDBOX) confine();
    check(prctl(PR_SET_PDEATHSIG, SIGKILL), "bind the life to the parent's");       /* also if that is killed */
    execv("/bin/busybox", command);
    die("exec");
}

static int clone_child(int level, const int *doors, char *const *command)
{
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } arguments = {
        .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | (level < CGROUPS ? CLONE_NEWCGROUP : 0),
        .exit_signal = SIGCHLD};
    for (int i = 0; level >= CGROUPS && i < group_count; i++)
        if (is_v2[i]) { arguments.flags |= 0x200000000ULL /* CLONE_INTO_CGROUP */; arguments.cgroup = doors[i]; }
    int pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    check(pid, "clone3");
    if (pid == 0) child(level, doors, command);
    return pid;
}

static void reap(int pid, const char *what)
{
    int status;
    check(waitpid(pid, &status, 0), what);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) { fprintf(stderr, "floor: %s: status %x\n", what, status); exit(99); }
}

static void fresh_directories(void)
{
    static const char *names[] = {"u", "w", "m"};
    char path[300], aside[300];
    round_number++;
    for (int i = 0; i < 3; i++) {          /* an engine would delete the old ones in the background */
        snprintf(path, sizeof path, "%s/%s", work, names[i]);
        snprintf(aside, sizeof aside, "%s/trash-%d%s", work, round_number, names[i]);
        if (rename(path, aside) && errno != ENOENT) die(path);
        check(mkdir(path, 0755), path);
    }
}

static void container(int level)
{
    static char *command[] = {"true", 0};
    int doors[16] = {0};
    fresh_directories();
    memset(groups, 0, sizeof groups);
    check(pipe2(gate, O_CLOEXEC), "pipe");
    if (level >= CGROUPS) make_groups(doors);
    int pid = clone_child(level, doors, command);
    if (level >= NETWORK) {
        connect_veth(pid);
        nat_element(NFT_MSG_NEWSETELEM);
        if (write(gate[1], "x", 1) != 1) die("open the gate");
    }
    reap(pid, "the container");
    close(gate[0]); close(gate[1]);
    if (level >= NETWORK) nat_element(NFT_MSG_DELSETELEM);
    if (level >= CGROUPS) { for (int i = 0; i < group_count; i++) close(doors[i]); remove_groups(); }
}

/* ---- exec ---------------------------------------------------------------------------------------------------------- */

static int sleeper, sleeper_doors[16];

static void start_sleeper(void)
{
    static char *command[] = {"sleep", "1000000", 0};
    fresh_directories();
    memset(groups, 0, sizeof groups);
    make_groups(sleeper_doors);
    sleeper = clone_child(SANDBOX, sleeper_doors, command);
    usleep(100000);
}

static void execute(void)
{
    int pid = fork();
    check(pid, "fork");
    if (pid == 0) {
        static char *command[] = {"true", 0};
        int pidfd = syscall(SYS_pidfd_open, sleeper, 0);
        check(pidfd, "pidfd_open");
        for (int i = 0; i < group_count; i++) if (!is_v2[i] && write(sleeper_doors[i], "0", 1) != 1) die("enter a cgroup");
        check(setns(pidfd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP), "setns");
        int inner = fork();
        check(inner, "fork");
        if (inner == 0) { confine(); execv("/bin/busybox", command); die("exec"); }
        reap(inner, "the exec");
        _exit(0);
    }
    reap(pid, "the exec's parent");
}

/* ---- the client ---------------------------------------------------------------------------------------------------- */

static struct sockaddr_un name_of(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strncpy(name.sun_path, path, sizeof name.sun_path - 1);
    return name;
}

static int client(const char *path)
{
    char answer[500];
    struct sockaddr_un name = name_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(connect(fd, (void *)&name, sizeof name), path);
    dprintf(fd, "POST /start HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n");
    return read(fd, answer, sizeof answer) > 0 ? 0 : 1;
}

static int with_client(void (*work)(int), int level)
{
    char request[500];
    int pid = fork();
    check(pid, "fork");
    if (pid == 0) { execl(self, "floor", "client", socket_path, (char *)0); die("exec the client"); }
    int fd = accept4(listener, 0, 0, SOCK_CLOEXEC);
    check(fd, "accept");
    if (read(fd, request, sizeof request) <= 0) die("read the request");
    if (work) work(level);
    dprintf(fd, "HTTP/1.1 204 No Content\r\n\r\n");
    close(fd);
    reap(pid, "the client");
    return 0;
}
static void exec_work(int level) { (void)level; execute(); }

static void spawn_true(void)
{
    char path[300];
    snprintf(path, sizeof path, "%s/bin/busybox", rootfs);
    int pid = fork();
    check(pid, "fork");
    if (pid == 0) { execl(path, "true", (char *)0); die(path); }
    reap(pid, "true");
}

static void run(const char *script) { if (system(script)) { fprintf(stderr, "floor: `%s` failed\n", script); exit(99); } }

int main(int count, char **words)
{
    static const struct { const char *name; int level, has_client; } measurements[] = {
        {"namespaces", NAMESPACES, 0}, {"mounts", MOUNTS, 0}, {"cgroups", CGROUPS, 0}, {"sandbox", SANDBOX, 0}, {"network", NETWORK, 0},
        {"none", SANDBOX, 1}, {"bridge", NETWORK, 1}};
    char line[40];
    if (count == 3 && !strcmp(words[1], "client")) return client(words[2]);
    if (count != 3) { fprintf(stderr, "usage: floor ROOTFS WORKDIR\n"); return 2; }
    snprintf(rootfs, sizeof rootfs, "%s", words[1]);
    snprintf(work, sizeof work, "%s", words[2]);
    snprintf(socket_path, sizeof socket_path, "%s/socket", work);
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) die("/proc/self/exe");

    struct sockaddr_un name = name_of(socket_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(bind(listener, (void *)&name, sizeof name), socket_path);
    check(listen(listener, 16), "listen");
    find_hierarchies();
    run("ip link del " BRIDGE " 2>/dev/null; ip link add " BRIDGE " type bridge && ip addr add 10.254.253.1/24 dev " BRIDGE " && ip link set " BRIDGE " up");
    run("nft 'add table inet " TABLE "; delete table inet " TABLE "; add table inet " TABLE ";"
        " add map inet " TABLE " ports { type inet_proto . inet_service : ipv4_addr . inet_service; };"
        " add chain inet " TABLE " nat { type nat hook prerouting priority -100; };"
        " add rule inet " TABLE " nat dnat ip to meta l4proto . th dport map @ports'");
    links = netlink(NETLINK_ROUTE);
    firewall = netlink(NETLINK_NETFILTER);
    bridge_index = if_nametoindex(BRIDGE);
    start_sleeper();
    printf("ready\n");
    fflush(stdout);

    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        double start = now();
        int known = 1;
        if (!strcmp(line, "spawn")) spawn_true();
        else if (!strcmp(line, "client")) with_client(0, 0);
        else if (!strcmp(line, "exec")) with_client(exec_work, 0);
        else {
            known = 0;
            for (unsigned i = 0; i < sizeof measurements / sizeof *measurements; i++)
                if (!strcmp(line, measurements[i].name)) {
                    known = 1;
                    if (measurements[i].has_client) with_client(container, measurements[i].level);
                    else container(measurements[i].level);
                }
        }
        if (!known) { fprintf(stderr, "floor: unknown measurement `%s`\n", line); break; }
        printf("%.3f\n", now() - start);
        fflush(stdout);
    }
    kill(sleeper, SIGKILL);
    waitpid(sleeper, 0, 0);
    for (int i = 0; i < group_count; i++)
        snprintf(groups[i], sizeof groups[i], "%s/" GROUP "1", hierarchies[i]);
    remove_groups();
    run("ip link del " BRIDGE "; nft delete table inet " TABLE);
    return 0;
}
