// The probes of kfuncs.txt by hand. What is acquired is released where it is not needed any more.
//
//     clang -O2 -g -mcpu=v3 -target bpf -c kfuncs.c

#include "common.h"

struct cgroup {
    s32 level, nr_descendants;
} CORE;

#define KFUNC extern __attribute__((section(".ksyms")))

KFUNC struct task_struct *bpf_task_from_pid(s32 pid);
KFUNC void bpf_task_release(struct task_struct *p);
KFUNC struct cgroup *bpf_cgroup_from_id(u64 cgid);
KFUNC struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgrp, s32 level);
KFUNC void bpf_cgroup_release(struct cgroup *cgrp);

SEC("tp_btf/sys_enter") int lookup(u64 *args) {
    struct counters *counts = hit(0);
    if (!counts) return 0;
    if (args[1] != 110) return filtered(counts);
    struct task_struct *found = bpf_task_from_pid(get_current_pid_tgid());
    if (!found) return filtered(counts);
    struct {
        struct header h;
        s32 tgid, prio;
        u64 start_time;
    } record;
    record.tgid = found->tgid;
    record.prio = found->prio;
    record.start_time = found->start_time;
    bpf_task_release(found);
    return send(counts, &record.h, sizeof record, 0, 7);
}

SEC("tracepoint/syscalls/sys_enter_getppid") int fields(void *args) {
    struct counters *counts = hit(1);
    if (!counts) return 0;
    struct {
        struct header h;
        s32 tgid, prio;
        u64 start_time;
    } record;
    u64 presence = 0;
    struct task_struct *found = bpf_task_from_pid(get_current_pid_tgid());
    if (found) {
        record.tgid = found->tgid;
        record.prio = found->prio;
        record.start_time = found->start_time;
        bpf_task_release(found);
        presence = 7;
    } else {
        record.tgid = record.prio = 0;
        record.start_time = 0;
    }
    return send(counts, &record.h, sizeof record, 1, presence);
}

SEC("tracepoint/syscalls/sys_enter_getppid") int nested(void *args) {
    struct counters *counts = hit(2);
    if (!counts) return 0;
    struct cgroup *own = bpf_cgroup_from_id(get_current_cgroup_id());
    if (!own) return filtered(counts);
    struct cgroup *top = bpf_cgroup_ancestor(own, 0);
    bpf_cgroup_release(own);
    if (!top) return filtered(counts);
    struct {
        struct header h;
        s32 level, descendants;
    } record;
    record.level = top->level;
    record.descendants = top->nr_descendants;
    bpf_cgroup_release(top);
    return send(counts, &record.h, sizeof record, 2, 3);
}
