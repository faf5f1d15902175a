// Opens a container in memory of its own, lets the device prove itself, and tells a story.
//
//   story CONTAINER PROMPT
//
// A firmware does the same with a container in its flash and an array for memory.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rescomp.h"

static void print(void *user, const uint8_t *text, size_t bytes) {
    fwrite(text, 1, bytes, (FILE *)user);
}

static int fail(const char *what, rescomp_status status) {
    fprintf(stderr, "%s: %s\n", what, rescomp_status_text(status));
    return 1;
}

// A file in memory that begins at a multiple of 64.
static uint8_t *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    uint8_t *contents = NULL;
    if (file == NULL) {
        return NULL;
    }
    if (fseek(file, 0, SEEK_END) == 0) {
        long end = ftell(file);
        if (end >= 0) {
            *bytes = (size_t)end;
            contents = aligned_alloc(64, (*bytes + 63) / 64 * 64);
            rewind(file);
            if (contents != NULL && fread(contents, 1, *bytes, file) != *bytes) {
                free(contents);
                contents = NULL;
            }
        }
    }
    fclose(file);
    return contents;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: story CONTAINER PROMPT\n");
        return 2;
    }
    size_t bytes = 0;
    uint8_t *container = read_file(argv[1], &bytes);
    if (container == NULL) {
        fprintf(stderr, "%s: cannot be read\n", argv[1]);
        return 1;
    }
    rescomp_plan plan;
    rescomp_status status = rescomp_plan_session(container, bytes, 0, &plan);
    if (status != RESCOMP_STATUS_OK) {
        return fail(argv[1], status);
    }
    // One byte less than the plan says is refused.
    void *memory = aligned_alloc(64, plan.memory_bytes);
    rescomp_session *session = NULL;
    status = rescomp_open(container, bytes, 0, memory, plan.memory_bytes - 1, &session);
    if (status != RESCOMP_STATUS_MEMORY) {
        return fail("a byte less", status);
    }
    status = rescomp_open(container, bytes, 0, memory, plan.memory_bytes, &session);
    if (status != RESCOMP_STATUS_OK) {
        return fail("open", status);
    }
    rescomp_check_result check;
    status = rescomp_check(session, &check);
    if (status != RESCOMP_STATUS_OK) {
        return fail("check", status);
    }
    fprintf(stderr, "%zu bytes of memory; NLL %.6f on the host, %.6f here\n", plan.memory_bytes, check.host_nll,
            check.device_nll);
    fputs(argv[2], stdout);
    status = rescomp_generate(session, (const uint8_t *)argv[2], strlen(argv[2]), 48, print, stdout);
    putchar('\n');
    if (status != RESCOMP_STATUS_OK) {
        return fail("generate", status);
    }
    free(memory);
    free(container);
    return 0;
}
