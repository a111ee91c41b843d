/* SPDX-License-Identifier: Apache-2.0 */
/* What the rest of the library needs of the sending side, beside gw_seal_burst. */
#ifndef GW_ESP_OUT_H
#define GW_ESP_OUT_H

#include "worker.h"

/**
 * gw_choose_prepare() - choose how packets of an SA are prepared.
 * @ah: AH, else ESP.
 * @mode: tunnel or transport.
 */
gw_prepare gw_choose_prepare(bool ah, enum gw_mode mode);

/**
 * gw_run_ops() - give the prepared operations to the crypto libraries, in runs of the same kind.
 * @worker: worker->ops has them.
 * @count: how many.
 */
void gw_run_ops(struct gw_worker *worker, size_t count);

#endif
