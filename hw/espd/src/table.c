/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <stdlib.h>
#include <string.h>

/* The place of the first record that is not less. */
static uint32_t place_of(const struct gw_table *table, const void *key)
{
	uint32_t low = 0, high = table->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (table->compare(table->items[middle], key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct gw_table *table, uint32_t place, const void *key)
{
	return place < table->count && table->compare(table->items[place], key) == 0;
}

void *gw_table_find(const struct gw_table *table, const void *key)
{
	uint32_t place = place_of(table, key);

	return is_at(table, place, key) ? table->items[place] : NULL;
}

uint32_t gw_table_after(const struct gw_table *table, const void *key)
{
	uint32_t place = place_of(table, key);

	return is_at(table, place, key) ? place + 1 : place;
}

static bool grow(struct gw_table *table, uint32_t room)
{
	void **items;

	if (room <= table->room)
		return true;
	room = room < 16 ? 16 : room + room / 2;
	items = realloc(table->items, room * sizeof(*items));
	if (!items)
		return false;
	table->items = items;
	table->room = room;
	return true;
}

bool gw_table_put(struct gw_table *table, void *item, void **replaced)
{
	uint32_t place = place_of(table, item);

	*replaced = NULL;
	if (is_at(table, place, item)) {
		*replaced = table->items[place];
		table->items[place] = item;
		return true;
	}
	if (!grow(table, table->count + 1))
		return false;
	memmove(table->items + place + 1, table->items + place,
		(table->count - place) * sizeof(*table->items));
	table->items[place] = item;
	table->count++;
	return true;
}

void *gw_table_take(struct gw_table *table, const void *key)
{
	uint32_t place = place_of(table, key);
	void *item;

	if (!is_at(table, place, key))
		return NULL;
	item = table->items[place];
	table->count--;
	memmove(table->items + place, table->items + place + 1,
		(table->count - place) * sizeof(*table->items));
	return item;
}

bool gw_table_copy(struct gw_table *to, const struct gw_table *from)
{
	if (!grow(to, from->count))
		return false;
	if (from->count)
		memcpy(to->items, from->items, from->count * sizeof(*to->items));
	to->count = from->count;
	return true;
}

void gw_table_free_others(struct gw_table *table, const struct gw_table *other)
{
	for (uint32_t i = 0; i < table->count; i++)
		if (gw_table_find(other, table->items[i]) != table->items[i])
			free(table->items[i]);
}

void gw_table_clear(struct gw_table *table)
{
	for (uint32_t i = 0; i < table->count; i++)
		free(table->items[i]);
	free(table->items);
	table->items = NULL;
	table->count = table->room = 0;
}
