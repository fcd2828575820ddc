// The probes of probes.txt by hand, as one would write them with libbpf: the same attach point, filter, fields, records and counters. What Porthole reads by a
// helper, because a fault there has to be told from a 0, is read by that helper here too.
//
//     clang -O2 -g -mcpu=v3 -target bpf -c probes.c

#include "common.h"

enum { TEXT = 256, COMM = 16, CUT = 0x8000 };

// Room for the record with texts, and for a text that is kept.
struct scratch {
    u8 record[1024];
    u8 kept[TEXT + 8];
};
struct {
    int (*type)[PERCPU_ARRAY];
    u32 *key;
    struct scratch *value;
    int (*max_entries)[2];
} scratches SEC(".maps");

#define ONES 0x0101010101010101ull
#define TOPS 0x8080808080808080ull

// The number of the lowest byte that is marked in its highest bit.
INLINE u32 lowest(u64 marks) {
    marks >>= 7;
    return ((((marks - 1) & ~marks) & ONES) * ONES >> 56) & 7;
}

INLINE u32 comm_length(const u64 *words) {
    u64 marks = (words[0] - ONES) & ~words[0] & TOPS;
    if (marks) return lowest(marks);
    return lowest((words[1] - ONES) & ~words[1] & TOPS) + 8;
}

SEC("tp_btf/sys_enter") int filter(u64 *args) {
    struct counters *counts = hit(0);
    if (!counts) return 0;
    if (args[1] != 999) return filtered(counts);
    struct header record;
    return send(counts, &record, sizeof record, 0, 0);
}

SEC("tp_btf/sys_enter") int bare(u64 *args) {
    struct counters *counts = hit(1);
    if (!counts) return 0;
    if (args[1] != 110) return filtered(counts);
    struct header record;
    return send(counts, &record, sizeof record, 1, 0);
}

struct sys_exit {
    u64 common;
    u32 nr;
    s64 ret;
};
SEC("tracepoint/syscalls/sys_exit_getppid") int result(struct sys_exit *args) {
    struct counters *counts = hit(2);
    if (!counts) return 0;
    struct {
        struct header h;
        s64 ret;
    } record;
    record.ret = args->ret;
    return send(counts, &record.h, sizeof record, 2, 1);
}

SEC("tracepoint/syscalls/sys_enter_getppid") int ids(void *args) {
    struct counters *counts = hit(3);
    if (!counts) return 0;
    struct {
        struct header h;
        u32 pid, tid, uid, gid;
    } record;
    u64 thread = get_current_pid_tgid(), user = get_current_uid_gid();
    record.pid = thread >> 32;
    record.tid = thread;
    record.uid = user;
    record.gid = user >> 32;
    return send(counts, &record.h, sizeof record, 3, 15);
}

SEC("tracepoint/syscalls/sys_enter_getppid") int name(void *args) {
    struct counters *counts = hit(4);
    if (!counts) return 0;
    struct {
        struct header h;
        u32 comm, pid;
        u64 text[2];
    } record;
    get_current_comm(record.text, COMM);
    record.comm = comm_length(record.text) << 16 | __builtin_offsetof(__typeof__(record), text);
    record.pid = get_current_pid_tgid() >> 32;
    return send(counts, &record.h, sizeof record, 4, 3);
}

SEC("tp_btf/sys_enter") int named(u64 *args) {
    struct counters *counts = hit(5);
    if (!counts) return 0;
    if (args[1] != 110) return filtered(counts);
    u64 comm[2] = {};
    get_current_comm(comm, COMM);
    if (comm[0] != *(u64 *)"kernel-c" || comm[1] != *(u64 *)"ost\0\0\0\0\0") return filtered(counts);
    struct {
        struct header h;
        u32 pid, padding;
    } record;
    record.padding = 0;
    record.pid = get_current_pid_tgid() >> 32;
    return send(counts, &record.h, sizeof record, 5, 1);
}

SEC("tp_btf/sys_enter") int parent(u64 *args) {
    struct counters *counts = hit(6);
    if (!counts) return 0;
    if (args[1] != 110) return filtered(counts);
    struct {
        struct header h;
        s32 ppid;
        u32 parent_uid, pid, padding;
    } record;
    record.padding = 0;
    u64 presence = 4;
    struct task_struct *parent = get_current_task_btf()->real_parent;
    const struct cred *cred;
    if (parent && !probe_read_kernel(&record.ppid, 4, &parent->tgid))
        presence |= 1;
    else
        record.ppid = 0;
    if (parent && !probe_read_kernel(&cred, 8, &parent->cred) && !probe_read_kernel(&record.parent_uid, 4, &cred->uid.val))
        presence |= 2;
    else
        record.parent_uid = 0;
    record.pid = get_current_pid_tgid() >> 32;
    return send(counts, &record.h, sizeof record, 6, presence);
}

SEC("tp_btf/sys_enter") int task(u64 *args) {
    struct counters *counts = hit(7);
    if (!counts) return 0;
    if (args[1] != 110) return filtered(counts);
    struct {
        struct header h;
        s32 prio, static_prio;
        u32 policy;
        s32 exit_state;
        u64 start_time, weight;
        u32 iowait;
        s32 tgid;
    } record;
    struct task_struct *task = get_current_task_btf();
    record.prio = task->prio;
    record.static_prio = task->static_prio;
    record.policy = task->policy;
    record.exit_state = task->exit_state;
    record.start_time = task->start_time;
    record.weight = task->se.load.weight;
    record.iowait = task->in_iowait;
    record.tgid = task->tgid;
    return send(counts, &record.h, sizeof record, 7, 255);
}

// clang has no signed division before -mcpu=v4.
INLINE s64 divided(s64 a, u64 b) { return a < 0 ? -(s64)(-(u64)a / b) : (s64)((u64)a / b); }
INLINE s64 remainder(s64 a, u64 b) { return a < 0 ? -(s64)(-(u64)a % b) : (s64)((u64)a % b); }

SEC("tp_btf/sys_enter") int maths(u64 *args) {
    struct counters *counts = hit(8);
    if (!counts) return 0;
    s64 id = args[1];
    if (id != 110) return filtered(counts);
    u32 pid = get_current_pid_tgid() >> 32, uid = get_current_uid_gid();
    s64 share = divided((s64)pid * 1000 + uid, 7);
    if (remainder(share, 5) == 9 || (id & 0xff) >= 200) return filtered(counts);
    struct {
        struct header h;
        s64 share, rest, less, scaled;
    } record;
    record.share = share;
    record.rest = remainder(share, 1000);
    record.less = divided(id - 500, 16);
    record.scaled = (s64)pid << 4 | (uid & 15);
    return send(counts, &record.h, sizeof record, 8, 15);
}

struct sys_enter_access {
    u64 common;
    u64 nr;
    const char *filename;
    u64 mode;
};

// Reads a text to `to`; its length, or less than 0 where it cannot be read. One more byte is asked for than is kept, to see whether there are more.
INLINE s64 user_text(void *to, const char *from, u32 *cut) {
    s64 length = probe_read_user_str(to, TEXT + 2, from) - 1;
    *cut = 0;
    if (length > TEXT) {
        length = TEXT;
        *cut = CUT;
    }
    return length;
}

SEC("tracepoint/syscalls/sys_enter_access") int path(struct sys_enter_access *args) {
    struct counters *counts = hit(9);
    if (!counts) return 0;
    u32 zero = 0, cut;
    struct {
        struct header h;
        u32 path;
        s32 mode;
        u8 texts[];
    } *record = map_lookup_elem(&scratches, &zero);
    if (!record) return 0;
    u64 cursor = sizeof *record, presence = 2;
    s64 length = user_text(record->texts, args->filename, &cut);
    if (length >= 0) {
        record->path = (length | cut) << 16 | cursor;
        cursor += length;
        presence |= 1;
    } else {
        record->path = 0;
    }
    record->mode = args->mode;
    *(u64 *)((u8 *)record + cursor) = 0;
    return send(counts, &record->h, (cursor + 7) & -8, 9, presence);
}

SEC("tracepoint/syscalls/sys_enter_access") int chosen(struct sys_enter_access *args) {
    struct counters *counts = hit(10);
    if (!counts) return 0;
    u32 one = 1, cut;
    struct scratch *scratch = map_lookup_elem(&scratches, &one);
    if (!scratch) return 0;
    s64 length = user_text(scratch->kept, args->filename, &cut);
    if (length < 0) return filtered(counts);
    if ((u32)get_current_uid_gid() != 0) return filtered(counts);
    if (length == 9 && *(u64 *)scratch->kept == *(u64 *)"/dev/nul" && scratch->kept[8] == 'l') return filtered(counts);
    struct {
        struct header h;
        u32 pid;
        s32 ppid;
        u32 path, comm;
        u8 texts[];
    } *record = (void *)scratch->record;
    u64 cursor = sizeof *record, presence = 13;
    record->pid = get_current_pid_tgid() >> 32;
    struct task_struct *parent = get_current_task_btf()->real_parent;
    if (parent && !probe_read_kernel(&record->ppid, 4, &parent->tgid))
        presence |= 2;
    else
        record->ppid = 0;
    probe_read_kernel(record->texts, length, scratch->kept);
    record->path = (length | cut) << 16 | cursor;
    cursor += length;
    u64 *comm = (void *)record + cursor;
    get_current_comm(comm, COMM);
    u32 comm_bytes = comm_length(comm);
    record->comm = comm_bytes << 16 | cursor;
    cursor += comm_bytes;
    *(u64 *)((u8 *)record + cursor) = 0;
    return send(counts, &record->h, (cursor + 7) & -8, 10, presence);
}

SEC("tp_btf/sys_exit") int ends(u64 *args) {
    struct counters *counts = hit(11);
    if (!counts) return 0;
    s64 ret = args[1];
    if (ret <= 0) return filtered(counts);
    if ((u32)get_current_uid_gid() != 0) return filtered(counts);
    struct {
        struct header h;
        s64 ret;
        u64 cgroup, since;
        s64 kind;
    } record;
    record.ret = ret;
    record.cgroup = get_current_cgroup_id();
    record.since = get_current_task_btf()->start_time;
    record.kind = ret > 100000 ? 3 : ret > 1000 ? 2 : 1;
    return send(counts, &record.h, sizeof record, 11, 15);
}
