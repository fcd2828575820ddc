// What probes in C share: counters and records as Porthole's programs have them.
//
// Needs no vmlinux.h and no libbpf headers. Structures of the kernel name only the fields that are used; libbpf finds where these are on the running
// kernel (CO-RE).

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int s32;
typedef unsigned long long u64;
typedef long long s64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define CORE __attribute__((preserve_access_index))

enum { RINGBUF = 27, PERCPU_ARRAY = 6 };

static void *(*map_lookup_elem)(void *, const void *) = (void *)1;
static u32 (*get_smp_processor_id)(void) = (void *)8;
static u64 (*get_current_pid_tgid)(void) = (void *)14;
static u64 (*get_current_uid_gid)(void) = (void *)15;
static long (*get_current_comm)(void *, u32) = (void *)16;
static u64 (*get_current_cgroup_id)(void) = (void *)80;
static long (*probe_read_kernel)(void *, u32, const void *) = (void *)113;
static long (*probe_read_user_str)(void *, u32, const void *) = (void *)114;
static u64 (*ktime_get_boot_ns)(void) = (void *)125;
static long (*ringbuf_output)(void *, void *, u64, u64) = (void *)130;
static struct task_struct *(*get_current_task_btf)(void) = (void *)158;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct kuid {
    u32 val;
} CORE;
struct cred {
    struct kuid uid;
} CORE;
struct load_weight {
    unsigned long weight;
} CORE;
struct sched_entity {
    struct load_weight load;
} CORE;
struct task_struct {
    s32 prio;
    s32 static_prio;
    u32 policy;
    s32 exit_state;
    u64 start_time;
    struct sched_entity se;
    unsigned in_iowait : 1;
    s32 tgid;
    struct task_struct *real_parent;
    const struct cred *cred;
} CORE;

struct counters {
    u64 hits, filtered, emitted, lost;
};
struct {
    int (*type)[RINGBUF];
    int (*max_entries)[1 << 24];
} events SEC(".maps");
struct {
    int (*type)[PERCPU_ARRAY];
    u32 *key;
    struct counters *value;
    int (*max_entries)[16];
} counters SEC(".maps");

// A record without its fields.
struct header {
    u32 length;
    u16 schema, cpu;
    u64 time, presence;
};

// Each function of a probe begins so: a hit is counted.
INLINE struct counters *hit(u32 probe) {
    struct counters *counts = map_lookup_elem(&counters, &probe);
    if (counts) counts->hits++;
    return counts;
}

INLINE int filtered(struct counters *counts) {
    counts->filtered++;
    return 0;
}

// And ends so.
INLINE int send(struct counters *counts, struct header *record, u32 length, u16 schema, u64 presence) {
    record->length = length;
    record->schema = schema;
    record->cpu = get_smp_processor_id();
    record->time = ktime_get_boot_ns();
    record->presence = presence;
    if (ringbuf_output(&events, record, length, 0))
        counts->lost++;
    else
        counts->emitted++;
    return 0;
}
