/* SPDX-License-Identifier: Apache-2.0 */
#include "crypto.h"

static const struct gw_crypto_library *const libraries[] = {
#ifdef GW_HAVE_IPSECMB
	&gw_ipsecmb,
#endif
	&gw_openssl,
};

#define LIBRARIES (sizeof(libraries) / sizeof(libraries[0]))

static bool runs_here(const struct gw_crypto_library *library)
{
	return library->name()[0] != '\0';
}

const struct gw_crypto_library *gw_crypto_choose(const struct gw_suite *suite,
						 enum gw_crypto wanted)
{
	for (size_t i = 0; i < LIBRARIES; i++) {
		const struct gw_crypto_library *library = libraries[i];

		if (wanted != GW_CRYPTO_AUTO && wanted != library->id)
			continue;
		if (runs_here(library) && library->has(suite))
			return library;
	}
	return NULL;
}

enum gw_error gw_crypto_start(struct gw_worker *worker)
{
	for (size_t i = 0; i < LIBRARIES; i++) {
		enum gw_error error = runs_here(libraries[i]) ? libraries[i]->start(worker) : GW_OK;

		if (error != GW_OK)
			return error;
	}
	return GW_OK;
}

void gw_crypto_stop(struct gw_worker *worker)
{
	for (size_t i = 0; i < LIBRARIES; i++)
		libraries[i]->stop(worker);
}

const char *gw_crypto_name(enum gw_crypto crypto)
{
	for (size_t i = 0; i < LIBRARIES; i++)
		if (libraries[i]->id == crypto)
			return libraries[i]->name();
	return "";
}

int gw_suite_crypto(uint8_t protocol, uint16_t encryption, uint16_t integrity, uint16_t key_bits,
		    enum gw_crypto wanted)
{
	const struct gw_crypto_library *library;
	struct gw_suite suite;

	if (gw_suite_find(protocol, encryption, integrity, key_bits, &suite) != GW_OK)
		return GW_E_UNSUPPORTED;
	library = gw_crypto_choose(&suite, wanted);
	return library ? (int)library->id : GW_E_UNSUPPORTED;
}
