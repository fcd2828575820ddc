// The load: a system call in a loop, as fast as it goes.
//
//     sysloop CPU CALLS
//
// Runs on processor CPU. Prints the calls made, and nanoseconds per call. getppid(2) does next to nothing, so what a probe on it costs shows.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

// By a function that is there to be traced.
__attribute__((noinline)) long parent(void) {
    return syscall(SYS_getppid);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: sysloop CPU CALLS\n");
        return 2;
    }
    long calls = atol(argv[2]);
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(atoi(argv[1]), &set);
    if (sched_setaffinity(0, sizeof set, &set)) {
        perror("sched_setaffinity");
        return 1;
    }
    double begun = now();
    for (long i = 0; i < calls; i++) parent();
    printf("%ld %.1f\n", calls, (now() - begun) / calls);
}
