/* A plug-in for qemu-user (TCG plug-ins, API version 1): writes how many guest instructions a process has executed.
   cc -shared -fPIC -O2 -o instructions.so instructions.c
   qemu-aarch64 -plugin ./instructions.so -d plugin PROGRAM
   The prototypes are those of qemu-plugin.h, which Debian does not ship. One thread at a time counts exactly. */
#include <inttypes.h>
#include <stdio.h>

typedef uint64_t plugin_id;
struct tb;
size_t qemu_plugin_tb_n_insns(const struct tb *block);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id, void (*translated)(plugin_id, struct tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct tb *block, int operation, void *counter, uint64_t by);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*at_exit)(plugin_id, void *), void *data);
void qemu_plugin_outs(const char *text);

int qemu_plugin_version = 1;
static uint64_t executed;

static void translated(plugin_id id, struct tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, 0 /* add */, &executed, qemu_plugin_tb_n_insns(block));
}

static void at_exit(plugin_id id, void *data) {
    char line[64];
    (void)id, (void)data;
    snprintf(line, sizeof line, "instructions: %" PRIu64 "\n", executed);
    qemu_plugin_outs(line);
}

int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
